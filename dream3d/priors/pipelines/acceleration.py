"""What makes a network's call faster and changes nothing but rounding: memory layout, compilation, CUDA graphs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dream3d.errors import ConfigError
from dream3d.priors.pipelines.group_norm import can_fuse, fuse
from dream3d.priors.pipelines.recording import CudaRecorder, Function, Recorded, Recorder

Compile = Literal["auto", "none", "graphs", "inductor"]


@dataclass(frozen=True)
class Acceleration:
    """What is switched on. Each can be switched off by itself, to find out what a fault comes from.

    Attributes:
        graphs: record calls as CUDA graphs.
        network: "inductor" compiles the denoising network with torch.compile.
        codec: "inductor" compiles the codec's encoder, backward pass included.
        channels_last: convolutions with their channels innermost, as tensor cores want them.
        fused: normalisation and activation as one kernel, and what else `group_norm.fuse` does, where it can; a
            compiled network does without.
        tune: let cuDNN time its kernels for each convolution that is recorded instead of guessing.
    """

    graphs: bool = False
    network: Literal["", "inductor"] = ""
    codec: Literal["", "inductor"] = ""
    channels_last: bool = False
    fused: bool = False
    tune: bool = False


PLAIN = Acceleration()


def acceleration_of(choice: Compile, device: torch.device, low_vram: bool = False) -> Acceleration:
    """What a setting `prior.compile` means on a device.

    "auto" is CUDA graphs on an NVIDIA GPU, nothing elsewhere and with `low_vram`, whose layers are moved about.

    Raises:
        ConfigError: the device has no CUDA graphs, or layers that are moved about were to be recorded.
    """
    gpu = device.type == "cuda"
    if choice == "none" or (choice == "auto" and (low_vram or not gpu)):
        return PLAIN
    if low_vram:
        raise ConfigError(
            f"prior.compile is '{choice}' and prior.low_vram is true, which moves layers while they compute; "
            "choose prior.compile=auto or none"
        )
    if choice == "inductor":
        return Acceleration(gpu, "inductor", "inductor", gpu, fused=gpu)
    if not gpu:
        raise ConfigError(
            f"prior.compile is '{choice}', but {device.type} has no CUDA graphs; choose auto, none or inductor"
        )
    return Acceleration(graphs=True, channels_last=True, fused=True)


class Accelerator:
    """Applies an `Acceleration` to one prior's calls.

    Args:
        how: what is switched on.
        device: of the networks.
        recorder: in place of CUDA's own, for tests.
    """

    def __init__(
        self, how: Acceleration, device: torch.device, recorder: Recorder | None = None
    ) -> None:
        self.how = how
        self.fuses = how.fused and can_fuse(device)
        self.recorder = recorder
        if how.graphs and recorder is None:
            self.recorder = CudaRecorder(device, how.tune)
        self.recorded: dict[str, Recorded] = {}

    def call(self, name: str, function: Function, parameters: Sequence[Tensor] = ()) -> Function:
        """`function`, recorded if graphs are on."""
        if self.recorder is None:
            return function
        made = Recorded(function, self.recorder, name, parameters)
        self.recorded[name] = made
        return made

    def network(self, network: Any) -> Callable[..., Any]:
        """What is called in place of the denoising network."""
        self._lay_out(network)
        if self.fuses and not self.how.network:
            fuse(network)
        # A shape of its own for every batch: recorded graphs have fixed shapes anyhow.
        return torch.compile(network, dynamic=False) if self.how.network else network

    def codec(self, vae: Any) -> None:
        """Prepare a codec's encoder, in place."""
        self._lay_out(vae)
        encoder = getattr(vae, "encoder", None)
        if not isinstance(encoder, nn.Module):
            return
        if self.fuses:
            fuse(encoder)
        elif self.how.codec:
            encoder.compile(dynamic=False)

    def image(self, x: Tensor) -> Tensor:
        """A batch of pictures as the convolutions want it."""
        if self.how.channels_last and x.ndim == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    @property
    def refusals(self) -> dict[str, str]:
        """Why which calls run as written."""
        return {name: call.refused for name, call in self.recorded.items() if call.refused}

    def _lay_out(self, module: Any) -> None:
        if self.how.channels_last and isinstance(module, nn.Module):
            for weight in module.parameters():
                if weight.ndim == 4:
                    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
