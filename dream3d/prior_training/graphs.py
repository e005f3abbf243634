"""Forward and backward of a training step: call by call, or recorded as CUDA graphs and replayed.

Such a small network is over before its thousand launches are: a replay is one launch.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.prior_training.objective import Exam, exam_loss
from dream3d.prior_training.weights import FlatWeights
from dream3d.priors.latent.components import Components

_WARM_UP = 3  # libraries choose and allocate in their first calls, which a recording must not hold


@dataclass(frozen=True)
class PlainBackward:
    """One exam after the other.

    Attributes:
        components: the network.
        flat: where its gradients go.
    """

    components: Components
    flat: FlatWeights

    def __call__(self, exam: Exam) -> Float[Tensor, ""]:
        """The loss; `flat.gradients` then holds its gradient."""
        self.flat.gradients.zero_()
        loss = exam_loss(self.components, exam)
        loss.backward()
        return loss.detach()


class GraphedBackward:
    """The same, recorded once for every kind and size of exam.

    The recording reads the weights and writes the gradients where `flat` keeps them, so both must stay in place.
    """

    def __init__(self, components: Components, flat: FlatWeights) -> None:
        self.plain = PlainBackward(components, flat)
        self._recorded: dict[tuple[object, ...], tuple[Exam, Callable[[], None], Tensor]] = {}

    def __call__(self, exam: Exam) -> Float[Tensor, ""]:
        """The loss; `flat.gradients` then holds its gradient. Valid until the next call with such an exam."""
        key = (exam.views, exam.features is None, exam.z_t.shape, exam.token_ids.shape)
        if key not in self._recorded:
            self._recorded[key] = self._record(exam)
        held, replay, loss = self._recorded[key]
        for name, value in _tensors(exam).items():
            getattr(held, name).copy_(value)
        replay()
        return loss.clone()

    def _record(self, exam: Exam) -> tuple[Exam, Callable[[], None], Tensor]:
        held = replace(exam, **{name: value.clone() for name, value in _tensors(exam).items()})
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self.plain(held)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.plain(held)
        return held, graph.replay, loss


def _tensors(exam: Exam) -> dict[str, Tensor]:
    values = {field.name: getattr(exam, field.name) for field in fields(exam)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
