"""The trainable twin of a latent diffusion prior: low-rank updates of its attention (LoRA, Hu et al. 2021) by PEFT.

The prior's own weights are shared and frozen; the updates are switched on only while the companion is asked. Where the
prior takes cameras itself they reach the companion the same way; otherwise an embedding of the camera is added to the
time embedding, as in ProlificDreamer. Its last layer starts at zero, and so does one factor of every update: an
untrained companion predicts exactly what the prior does.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.func import functional_call

from dream3d.companion import Companion, without_camera
from dream3d.diffusion import Prediction
from dream3d.priors.base import Condition
from dream3d.priors.latent.camera_encoder import FEATURES, camera_features

ADAPTER = "companion"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
CAMERA_HIDDEN = 256


@runtime_checkable
class HasNetwork(Protocol):
    """A prior with a network of diffusers."""

    network: Any
    device: torch.device
    accepts_cameras: bool

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        """As `Prior.predict`, with gradient."""
        ...


@runtime_checkable
class RecordsCalls(Protocol):
    """A prior that can record what is asked of its network (see `dream3d.priors.pipelines.recording`)."""

    def recorded(
        self, name: str, function: Callable[..., Tensor], parameters: Sequence[Tensor]
    ) -> Callable[..., Tensor]:
        """`function`, recorded if the prior does so; `parameters` are the leaves inside it that train."""
        ...

    def output_of(
        self,
        ask: Callable[..., Tensor],
        z_t: Float[Tensor, "B C h w"],
        t: Float[Tensor, " B"],
        condition: Condition,
    ) -> Prediction:
        """As `HasNetwork.output`; `ask` takes the network's place."""
        ...


class _Asked(nn.Module):
    """A network's `forward`; not by way of its `__call__`, which the prior may have compiled."""

    PREFIX = "network."

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **given: Any) -> Any:
        return self.network.forward(**given)


def update_targets(network: nn.Module) -> list[str]:
    """Names of the linear layers that get updates: attention's, by whatever names they go.

    A layer that carries another companion's updates already is one layer: what is inside of it is no target.
    """
    modules = dict(network.named_modules())
    inside = tuple(f"{name}." for name, m in modules.items() if isinstance(m, BaseTunerLayer))
    names = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear | BaseTunerLayer) and not name.startswith(inside)
    ]
    usual = [name for name in names if name.endswith(tuple(f".{target}" for target in TARGETS))]
    return usual or [name for name in names if "attn" in name or "attention" in name]


def updated_layers(network: nn.Module) -> list[BaseTunerLayer]:
    """The layers that carry updates."""
    return [module for module in network.modules() if isinstance(module, BaseTunerLayer)]


class LoraCompanion(Companion):
    """See the module.

    PEFT is used directly, not through diffusers' methods, which some of its networks (PixArt, PRX) do not have.

    Args:
        prior: whose network gets the updates; a companion of the same name made earlier for it is replaced.
        rank: of every update.
        seed: of the updates' random factors.
        name: of the adapter; companions of different names live side by side.
    """

    def __init__(self, prior: HasNetwork, rank: int, seed: int, name: str = ADAPTER) -> None:
        self.prior, self.name = prior, name
        self.unet = prior.network
        # Not the network's own `dtype`, for which diffusers looks through all of it every time.
        self._dtype = next(self.unet.parameters()).dtype
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # PEFT warns of a second adapter, which a pair of companions is, and of one deleted beside it.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            warnings.filterwarnings("ignore", message="Adapter .* was active")
            if name in getattr(self.unet, "peft_config", {}):
                for layer in updated_layers(self.unet):
                    layer.delete_adapter(name)
                del self.unet.peft_config[name]
            torch.manual_seed(seed)
            inject_adapter_in_model(
                LoraConfig(r=rank, lora_alpha=rank, target_modules=update_targets(self.unet)),
                self.unet,
                name,
            )
            # A transformer without such a time embedding learns without cameras.
            timed = hasattr(self.unet, "time_embedding")
            self.camera = None
            if timed and not prior.accepts_cameras:
                self.camera = _camera_embedding(self.unet)
        if self.camera is not None:
            self.camera.to(prior.device)
        self._parameters = {key: p for key, p in self.unet.named_parameters() if f".{name}." in key}
        for parameter in self._parameters.values():
            parameter.data = parameter.data.float()  # small updates need more than 16 bits
        self._updates = dict(self._parameters)
        if self.camera is not None:
            self._parameters |= {f"camera.{n}": p for n, p in self.camera.named_parameters()}
        self._layers = updated_layers(self.unet)
        self._asked = _Asked(self.unet)
        self._switch_off()
        self._records: RecordsCalls | None = prior if isinstance(prior, RecordsCalls) else None
        self._ask: Callable[..., Tensor] | None = None
        if self._records is not None:
            self._ask = self._records.recorded(name, self._network, list(self._updates.values()))

    def parameters(self) -> dict[str, Tensor]:
        return dict(self._parameters)

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        told = condition if self.prior.accepts_cameras else without_camera(condition)
        embedding = self._embedding(condition)
        if self._records is not None and self._ask is not None:
            ask = partial(self._ask, embedding=embedding)
            return self._records.output_of(ask, z_t, t, told)
        with self._switched_on(embedding):
            return self.prior.output(z_t, t, told)

    def _embedding(self, condition: Condition) -> Tensor | None:
        """The camera's part of the time embedding, zero where it is not told; None where there is no such part."""
        if self.camera is None:
            return None
        if condition.cameras is not None:
            return self.camera(camera_features(condition.cameras).to(self.prior.device))
        # With a gradient, which goes nowhere, so that both kinds of call are of one kind.
        width = int(self.unet.time_embedding.linear_2.out_features)
        zero = torch.zeros(len(condition), width, device=self.prior.device)
        return zero.requires_grad_(torch.is_grad_enabled())

    def _network(self, embedding: Tensor | None, **given: Any) -> Any:
        """The network's answer with the updates on, which work in the network's precision.

        They are kept in 32 bits; left so in a network of 16, PEFT would turn every activation at every update into 32
        bits and keep it for the backward pass.
        """
        updates = {f"{_Asked.PREFIX}{key}": p.to(self._dtype) for key, p in self._updates.items()}
        with self._switched_on(embedding):
            return functional_call(self._asked, updates, kwargs=given, tie_weights=False)[0]

    @contextmanager
    def _switched_on(self, embedding: Tensor | None) -> Iterator[None]:
        """The updates, and the camera's part of the time embedding, inside the block only."""
        hook = None
        if embedding is not None:
            hook = self.unet.time_embedding.register_forward_hook(
                lambda module, inputs, output: output + embedding.to(output.dtype)
            )
        for layer in self._layers:
            if layer.active_adapters != [self.name]:
                layer.set_adapter(self.name)
            layer.enable_adapters(True)
        try:
            yield
        finally:
            self._switch_off()
            if hook is not None:
                hook.remove()

    def _switch_off(self) -> None:
        for layer in self._layers:
            layer.enable_adapters(False)
        # PEFT freezes what it switches off, and a backward pass that is still to come would then reach nothing.
        for parameter in self._parameters.values():
            parameter.requires_grad_()


def _camera_embedding(unet: nn.Module) -> nn.Sequential:
    """From camera features to the width of `unet`'s time embedding, zero to begin with."""
    width = unet.time_embedding.linear_2.out_features  # type: ignore[union-attr]
    last = nn.Linear(CAMERA_HIDDEN, int(width))  # type: ignore[arg-type]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(FEATURES, CAMERA_HIDDEN), nn.SiLU(), last)
