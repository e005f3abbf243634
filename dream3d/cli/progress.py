"""The progress of a run on standard error: a live bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from dream3d.train import StepReport

SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """Shows each step of a run.

    Args:
        steps: of every stage.
    """

    def __init__(self, steps: list[int]) -> None:
        self.before = [sum(steps[:index]) for index in range(len(steps))]
        self.total = sum(steps)
        self.terminal = sys.stderr.isatty()
        self.bar: tqdm | None = None
        self.began = time.perf_counter()
        self.first_step = 0
        self.last_line = 0.0

    def __call__(self, report: "StepReport") -> None:
        """Show one step."""
        done = self.before[report.stage] + report.step
        if self.first_step == 0:
            self.first_step, self.began = done, time.perf_counter()
        if self.terminal:
            self._draw(done, report.loss)
        else:
            self._line(done, report.loss)

    def _draw(self, done: int, loss: float) -> None:
        if self.bar is None:
            self.bar = tqdm(
                total=self.total, initial=done - 1, file=sys.stderr, unit="step", dynamic_ncols=True
            )
        self.bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        self.bar.update(done - self.bar.n)

    def _line(self, done: int, loss: float) -> None:
        now = time.perf_counter()
        if now - self.last_line < SECONDS_BETWEEN_LINES and done < self.total:
            return
        self.last_line = now
        taken = done - self.first_step
        left = (now - self.began) / taken * (self.total - done) if taken else float("nan")
        ending = f", {left:.0f} s left" if taken else ""
        print(f"step {done}/{self.total}  loss {loss:.4g}{ending}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self.bar is not None:
            self.bar.close()
