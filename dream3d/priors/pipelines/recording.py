"""Networks as CUDA graphs: recorded at the second call of a kind, replayed at every later one.

A U-Net is a thousand small kernels; launched one by one they keep a fast GPU waiting for the host. A recording is one
launch. Its inputs, outputs and everything between lie at fixed addresses: a call copies its tensors in, replays, and
copies the answer out. What is recorded must be a pure function of its tensors: no randomness, no reading of a value on
the host, weights that stay where they are. Whatever does not fit is computed as written, and the log says why.
"""

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

log = logging.getLogger(__name__)

MOST = 4
"""Kinds of call that are recorded of one function; each holds memory."""
WARM_ROUNDS = 3
"""Runs before recording: libraries choose their kernels and allocate workspaces in the first."""


@runtime_checkable
class Recorder(Protocol):
    """What records work on a device. A stand-in that runs the work again serves tests without a GPU."""

    def warm(self, work: Callable[[], object]) -> None:
        """Run `work` a few times, aside."""

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        """What `work` returned while it was recorded, and what runs it again into the same tensors."""
        ...

    def apart(self) -> "Recorder":
        """One whose recordings share no memory with this one's."""
        ...


class CudaRecorder:
    """CUDA graphs. Recordings of one recorder share the memory they work in, so no two may be under way at once.

    Args:
        device: an NVIDIA GPU.
        tune: let cuDNN time its kernels for each convolution instead of guessing.
    """

    def __init__(self, device: torch.device, tune: bool = False) -> None:
        self.device, self.tune = device, tune
        self._pool: Any = None

    def warm(self, work: Callable[[], object]) -> None:
        """On a stream of its own; the last run refuses whatever waits for the host, which no graph can hold."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        mode = torch.cuda.get_sync_debug_mode()
        with torch.cuda.stream(stream):
            for turn in range(WARM_ROUNDS):
                torch.cuda.set_sync_debug_mode(2 if turn == WARM_ROUNDS - 1 else mode)
                try:
                    with self._choices():
                        work()
                finally:
                    torch.cuda.set_sync_debug_mode(mode)
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def record(self, work: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads (a preview on its way to disk) may use the GPU meanwhile.
        capture = torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")
        with self._choices(), capture:
            result = work()
        return result, graph.replay

    def apart(self) -> "CudaRecorder":
        return CudaRecorder(self.device, self.tune)

    @contextmanager
    def _choices(self) -> Iterator[None]:
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.tune or before
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


def taken_apart(value: Any) -> tuple[list[Tensor], Any]:
    """The tensors of nested arguments in order, and a hashable form of all that is left.

    Raises:
        TypeError: something in it can be neither a tensor nor told apart by value.
    """
    if isinstance(value, Tensor):
        return [value], ("tensor", tuple(value.shape), value.dtype, value.device)
    if isinstance(value, list | tuple):
        parts = [taken_apart(part) for part in value]
        forms = tuple(form for _, form in parts)
        return [x for tensors, _ in parts for x in tensors], (type(value).__name__, forms)
    if isinstance(value, dict):
        tensors, form = taken_apart(list(value.values()))
        return tensors, ("dict", tuple(value), form)
    hash(value)
    return [], ("value", type(value), value)


def put_together(form: Any, tensors: Iterator[Tensor]) -> Any:
    """The inverse of `taken_apart`."""
    kind = form[0]
    if kind == "tensor":
        return next(tensors)
    if kind == "value":
        return form[2]
    if kind == "dict":
        return dict(zip(form[1], put_together(form[2], tensors), strict=True))
    parts = [put_together(part, tensors) for part in form[1]]
    return parts if kind == "list" else tuple(parts)


Function = Callable[..., Tensor]


class ForwardRecording:
    """One call without gradient."""

    def __init__(
        self, recorder: Recorder, run: Callable[[list[Tensor]], Tensor], like: list[Tensor]
    ) -> None:
        self._inputs = [x.detach().clone() for x in like]
        with torch.no_grad():
            recorder.warm(lambda: run(self._inputs))
            self._output, self._replay = recorder.record(lambda: run(self._inputs))

    def __call__(self, tensors: list[Tensor]) -> Tensor:
        with torch.no_grad():
            for mine, given in zip(self._inputs, tensors, strict=True):
                mine.copy_(given)
            self._replay()
            return self._output.clone()


class TrainRecording:
    """One call and its backward pass, two recordings that share the activations between them.

    Gradients reach the inputs that ask for them and `parameters`. A second call before the first one's backward pass
    overwrites the first one's activations; they are then computed again.
    """

    def __init__(
        self,
        recorder: Recorder,
        run: Callable[[list[Tensor]], Tensor],
        like: list[Tensor],
        parameters: Sequence[Tensor],
    ) -> None:
        self.serial = 0
        self._inputs = [x.detach().clone().requires_grad_(x.requires_grad) for x in like]
        self._wanted = [x for x in self._inputs if x.requires_grad]
        self._sources = [*self._wanted, *parameters]
        self._run = run
        self._answer: Tensor | None = None
        # With gradient, lest a compiler be asked for another form of the network.
        self._slope = torch.ones_like(self._forward())
        self._answer = None
        recorder = recorder.apart()
        recorder.warm(self._once)
        self._output, self._replay_forward = recorder.record(self._forward)
        self._grads, self._replay_backward = recorder.record(self._backward)
        self._answer = None

    def _once(self) -> None:
        self._forward()
        self._backward()
        # A graph that outlives its stream would tie the recording to it.
        self._answer = None

    def _forward(self) -> Tensor:
        with torch.enable_grad():
            self._answer = self._run(self._inputs)
        return self._answer.detach()

    def _backward(self) -> list[Tensor | None]:
        assert self._answer is not None
        return list(
            torch.autograd.grad(self._answer, self._sources, self._slope, allow_unused=True)
        )

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        """The answer; `serial` says which call's activations are held."""
        with torch.no_grad():
            for mine, given in zip(self._inputs, tensors, strict=True):
                mine.copy_(given)
        self._replay_forward()
        self.serial += 1
        return self._output.clone()

    def backward(
        self, slope: Tensor, serial: int, tensors: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Gradients of all inputs, None where not asked for, and of the parameters."""
        if serial != self.serial:
            self.forward(tensors)
        self._slope.copy_(slope)
        self._replay_backward()
        # Copies of all gradients by one operation: a companion has some 256 small ones.
        copies = iter(torch._foreach_mul([grad for grad in self._grads if grad is not None], 1.0))
        grads = iter([None if grad is None else next(copies) for grad in self._grads])
        return [*(next(grads) if x.requires_grad else None for x in self._inputs), *grads]


class _Replay(torch.autograd.Function):
    """A `TrainRecording` as a step of autograd."""

    @staticmethod
    def forward(ctx: Any, recording: TrainRecording, count: int, *tensors: Tensor) -> Tensor:
        ctx.recording, ctx.count = recording, count
        ctx.save_for_backward(*tensors[:count])
        answer = recording.forward(tensors[:count])
        ctx.serial = recording.serial
        return answer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None, None, *ctx.recording.backward(slope, ctx.serial, ctx.saved_tensors)


class Recorded:
    """A function of keyword arguments to one tensor that is recorded and replayed.

    Args:
        function: pure, see the module.
        recorder: records.
        name: for the log.
        parameters: leaf tensors inside `function` that get gradients.

    Attributes:
        refused: why nothing is recorded any more, or "".
        failure: the end of the traceback that made it so.
    """

    def __init__(
        self, function: Function, recorder: Recorder, name: str, parameters: Sequence[Tensor] = ()
    ) -> None:
        self.function, self.recorder, self.name = function, recorder, name
        self.parameters = tuple(parameters)
        self.refused = self.failure = ""
        self._recordings: dict[Any, ForwardRecording | TrainRecording] = {}
        self._seen: set[Any] = set()

    def __call__(self, **given: Any) -> Tensor:
        """As `function`, to the rounding of the same kernels."""
        if self.refused or torch.is_inference_mode_enabled() or torch.is_autocast_enabled():
            return self.function(**given)
        try:
            tensors, form = taken_apart(given)
        except TypeError as error:
            self._refuse(error)
            return self.function(**given)
        asked = tuple(x.requires_grad for x in tensors)
        trains = torch.is_grad_enabled() and (any(asked) or bool(self.parameters))
        key = (form, asked if trains else None)
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._record(key, form, tensors, trains)
        if isinstance(recording, ForwardRecording):
            return recording(tensors)
        if isinstance(recording, TrainRecording):
            answer = _Replay.apply(recording, len(tensors), *tensors, *self.parameters)
            assert isinstance(answer, Tensor)
            return answer
        return self.function(**given)

    def _record(
        self, key: Any, form: Any, tensors: list[Tensor], trains: bool
    ) -> ForwardRecording | TrainRecording | None:
        """A new recording; None at the first call of a kind, beyond `MOST` kinds, or where it fails."""
        if key not in self._seen or len(self._recordings) >= MOST:
            self._seen.add(key)
            return None

        def run(inputs: list[Tensor]) -> Tensor:
            return self.function(**put_together(form, iter(inputs)))

        try:
            if trains:
                made = TrainRecording(self.recorder, run, tensors, self.parameters)
            else:
                made = ForwardRecording(self.recorder, run, tensors)
        except Exception as error:  # whatever a network, a compiler or a driver may raise
            self._refuse(error)
            return None
        self._recordings[key] = made
        return made

    def _refuse(self, error: Exception) -> None:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        self.refused = f"{type(error).__name__}: {first[:200]}"
        self.failure = "".join(traceback.format_exception(error)[-15:])
        self._recordings.clear()
        log.warning(
            "%s is not recorded as a CUDA graph and runs as written: %s", self.name, self.refused
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
