"""Proportions with their uncertainty."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Proportion:
    """A share of successes with its 95 % interval.

    Attributes:
        value: successes / n, in [0, 1].
        low, high: Wilson score interval at 95 %.
        n: independent trials.
    """

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        """The four numbers under their names."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> Proportion:
    """The share of successes with its Wilson score interval (Wilson 1927).

    centre = (p + z^2 / 2n) / (1 + z^2 / n), half width = z sqrt(p (1 - p) / n + z^2 / 4n^2) / (1 + z^2 / n).

    Args:
        successes: between 0 and n.
        n: trials, > 0.
        z: standard normal quantile; the default gives 95 %.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(
            f"a proportion needs 0 <= successes <= n and n > 0, got {successes} of {n}"
        )
    p = successes / n
    scale = 1.0 + z * z / n
    centre = (p + z * z / (2 * n)) / scale
    half = z * math.sqrt(p * (1.0 - p) / n + z * z / (4 * n * n)) / scale
    return Proportion(p, max(0.0, centre - half), min(1.0, centre + half), n)
