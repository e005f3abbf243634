"""3D Gaussian splats as a scene: the representation of choice on a CPU."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch
from dream3d.rendering import RenderOutput, normals_of_depth
from dream3d.scenes.base import SCENES, Scene, SceneConfig, check_settings, check_state
from dream3d.scenes.conversions.mesh_splats import mesh_to_splats
from dream3d.scenes.splats_density import (
    AdaptiveRules,
    Edit,
    apply_edit,
    densify,
    exploration_noise,
    relocate,
)
from dream3d.scenes.splats_mesh import render_images, surface_colors, to_mesh
from dream3d.scenes.surface import ColoredMesh, mesh_cameras
from dream3d.schedules import Ramp, constant
from renderers.splats import SplatData, render_splats
from renderers.splats_sh import C0, rgb_to_sh

TEXTURE_VIEWS = 256
"""Side in pixels of the views a texture is painted from."""
SEEN_WITHIN = 0.035
"""World units behind the rendered depth within which a surface point counts as seen; two cells of the mesh's grid."""
STATISTICS = ("gradient_sum", "gradient_count")
CHOICES = {
    "init": ("sphere", "surface", "random"),
    "density": ("relocate", "adaptive", "none"),
}


@SCENES.register("splats")
@dataclass(frozen=True)
class SplatsConfig(SceneConfig):
    """3D Gaussian splats.

    Attributes:
        count: splats at the start.
        max_count: splats at most.
        sh_degree: 0 (the same colour from everywhere) to 3.
        init: "sphere" fills a ball, denser toward its centre; "surface" covers its surface;
            "random" is uniform in the cube around it.
        init_radius: of that ball, in world units.
        init_opacity: opacity of every splat at the start, in (0, 1).
        init_scale: initial size relative to the mean spacing of the splats.
        init_color: grey level, to which a little noise is added.
        lr_means, lr_scales, lr_quaternions, lr_opacities, lr_colors: Adam's learning rates over the stage, for means in
            world units, scales and opacities in raw (log, logit) units, colours in [0, 1] units. Coefficients of
            degree > 0 move at a twentieth of the colours' rate.
        density: "relocate" (3DGS-MCMC), "adaptive" (clone, split, prune) or "none".
        density_from, density_to: fractions of the stage between which it acts.
        density_every: steps between two times it acts.
        growth: "relocate": share of splats added each time, within max_count.
        noise: "relocate": exploration noise relative to the means' learning rate.
        split_gradient: "adaptive": mean screen gradient above which a splat is cloned or split.
        split_scale: "adaptive": width in world units that separates splitting from cloning.
        prune_opacity, prune_scale: "adaptive": fainter or wider splats are removed.
        opacity_reset_every: "adaptive": steps between two times all opacities are lowered to at most 0.1; 0 is never.
        weight_scale: penalty on the mean splat size.
        weight_flat: penalty on the mean shortest axis, which turns splats into discs that lie on the surface.
        weight_opacity: penalty on the mean opacity, which lets superfluous splats die.
        weight_entropy: penalty on the binary entropy of the rendered alpha, which makes pixels decide.
        weight_tv_rgb, weight_tv_depth: total variation of the rendered colour and depth.
        antialias: make splats cover the same area at every image size; without it what is optimised at 64 pixels is
            thinner when drawn larger.
        depth_at: where the surface of splats is put when they are looked at, measured or made a mesh, in standard
            deviations before the densest point on a pixel's ray; 0 and all training take depth at their centres.
        backend: renderer backend: "auto", "numba", "torch".
    """

    count: int = 4000
    max_count: int = 6000
    sh_degree: int = 0
    init: Literal["sphere", "surface", "random"] = "sphere"
    init_radius: float = 0.6
    init_opacity: float = 0.1
    init_scale: float = 0.8
    init_color: float = 0.5
    lr_means: Ramp = field(default_factory=lambda: Ramp(0.01, 0.001))
    lr_scales: Ramp = field(default_factory=lambda: Ramp(0.02, 0.01))
    lr_quaternions: Ramp = field(default_factory=lambda: Ramp(0.02, 0.01))
    lr_opacities: Ramp = field(default_factory=lambda: constant(0.05))
    lr_colors: Ramp = field(default_factory=lambda: Ramp(0.02, 0.01))
    density: Literal["relocate", "adaptive", "none"] = "relocate"
    density_from: float = 0.05
    density_to: float = 0.8
    density_every: int = 20
    growth: float = 0.05
    noise: float = 20.0
    split_gradient: float = 2e-4
    split_scale: float = 0.05
    prune_opacity: float = 0.01
    prune_scale: float = 0.4
    opacity_reset_every: int = 0
    weight_scale: float = 0.01
    weight_flat: float = 0.0
    weight_opacity: float = 0.01
    weight_entropy: float = 0.0
    weight_tv_rgb: float = 0.0
    weight_tv_depth: float = 0.0
    antialias: bool = True
    depth_at: float = 2.75
    backend: str = "auto"

    def __post_init__(self) -> None:
        limits = {
            "count": (1, 10_000_000),
            "max_count": (self.count, 10_000_000),
            "sh_degree": (0, 3),
            "init_radius": (1e-3, 10.0),
            "init_opacity": (0.005, 0.99),
            "init_scale": (1e-3, 100.0),
            "init_color": (0.0, 1.0),
            "density_from": (0.0, self.density_to),
            "density_to": (0.0, 1.0),
            "density_every": (1, 1_000_000),
            "growth": (0.0, 10.0),
            "opacity_reset_every": (0, 1_000_000),
            "depth_at": (0.0, 10.0),
        }
        check_settings(self, limits, CHOICES)

    @classmethod
    def tiny(cls) -> "SplatsConfig":
        return cls(count=150, max_count=180, init_opacity=0.9, init_scale=1.5)

    def create(self, generator: torch.Generator, device: torch.device) -> "Splats":
        """A cloud of identical round splats with random orientations."""
        n = self.count
        positions, spacing = start_positions(self.init, n, generator)
        rgb = self.init_color + 0.05 * torch.randn(n, 1, 3, generator=generator)
        raw = {
            "means": self.init_radius * positions,
            "log_scales": torch.full(
                (n, 3), math.log(self.init_scale * self.init_radius * spacing)
            ),
            "quaternions": torch.randn(n, 4, generator=generator),
            "opacities": torch.full((n,), math.log(self.init_opacity / (1.0 - self.init_opacity))),
            "colors": rgb_to_sh(rgb.clamp(0.0, 1.0)),
        }
        if self.sh_degree > 0:
            raw["colors_rest"] = torch.zeros(n, (self.sh_degree + 1) ** 2 - 1, 3)
        return Splats(self, {name: value.to(device) for name, value in raw.items()})

    def convert(
        self, previous: Scene, generator: torch.Generator, device: torch.device
    ) -> "Splats":
        """`count` thin splats on the surface of the scene before."""
        made = mesh_to_splats(previous.to_mesh(), self.count, generator)
        assert made.sh is not None
        raw = {
            "means": made.means,
            "log_scales": made.log_scales,
            "quaternions": made.quaternions,
            "opacities": made.opacity_logits,
            "colors": made.sh,
        }
        if self.sh_degree > 0:
            raw["colors_rest"] = torch.zeros(self.count, (self.sh_degree + 1) ** 2 - 1, 3)
        return Splats(self, {name: value.to(device) for name, value in raw.items()})


def start_positions(kind: str, n: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """`n` points [n, 3] of a unit ball, its surface or the cube around it, and their mean spacing."""
    if kind == "random":
        return 2.0 * torch.rand(n, 3, generator=generator) - 1.0, 2.0 * n ** (-1 / 3)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1)
    share = torch.rand(n, 1, generator=generator)
    if kind == "surface":
        return direction, math.sqrt(4 * math.pi / n)
    # Volume element r^2 dr: share^(1/3) would be uniform; the square root crowds the centre.
    return share.sqrt() * direction, (4.0 / 3.0 * math.pi / n) ** (1 / 3)


class Splats(Scene):
    """Optimisable splats. Colours are degree-0 spherical-harmonic coefficients, kept within [0, 1] as colours.

    Args:
        config: settings.
        raw: raw parameters by name, see `SplatsConfig.create`.
    """

    def __init__(self, config: SplatsConfig, raw: dict[str, Tensor]) -> None:
        self.config = config
        self._parameters = {name: torch.nn.Parameter(value) for name, value in raw.items()}
        self._statistics = self._fresh_statistics()
        # Screen offsets of the renders since the last density control, with the image size they were made at.
        self._probes: list[tuple[Tensor, int]] = []

    def _fresh_statistics(self) -> dict[str, Tensor]:
        zeros = torch.zeros(len(self), device=self._parameters["means"].device)
        return {name: zeros.clone() for name in STATISTICS}

    def __len__(self) -> int:
        return len(self._parameters["means"])

    @property
    def splats(self) -> SplatData:
        """The current splats, with gradient history."""
        p = self._parameters
        sh = (
            torch.cat([p["colors"], p["colors_rest"]], dim=1) if "colors_rest" in p else p["colors"]
        )
        return SplatData(p["means"], p["log_scales"], p["quaternions"], p["opacities"], sh=sh)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return dict(self._parameters)

    def learning_rates(self, progress: float) -> dict[str, float]:
        c = self.config
        colors = c.lr_colors(progress) / C0
        rates = {
            "means": c.lr_means(progress),
            "log_scales": c.lr_scales(progress),
            "quaternions": c.lr_quaternions(progress),
            "opacities": c.lr_opacities(progress),
            "colors": colors,
            "colors_rest": colors / 20.0,
        }
        return {name: rates[name] for name in self._parameters}

    def render(self, cameras: CameraBatch) -> RenderOutput:
        """While gradients are recorded depth is that of the splats' centres, which is cheaper; else of the surface."""
        probe = None
        if self.config.density == "adaptive" and torch.is_grad_enabled():
            like = self._parameters["means"]
            probe = torch.zeros(len(cameras), len(self), 2, device=like.device, requires_grad=True)
            self._probes.append((probe, max(cameras.height, cameras.width)))
        return render_splats(
            self.splats,
            cameras,
            self.config.backend,
            antialias=self.config.antialias,
            depth_at=0.0 if torch.is_grad_enabled() else self.config.depth_at,
            screen_offset=probe,
        )

    @torch.no_grad()
    def render_normals(self, cameras: CameraBatch) -> RenderOutput:
        """Normals of flat splats are their shortest axis; the rounder they are, the more depth has the say."""
        c, splats = self.config, self.splats.detach()
        how = {"antialias": c.antialias, "depth_at": c.depth_at}
        out = render_splats(splats, cameras, c.backend, normals=True, **how)
        scales = splats.log_scales.exp().sort(dim=1).values
        flat = 1.0 - (scales[:, :1] / scales[:, 1:2].clamp_min(1e-12)).square()
        share = render_splats(replace(splats, sh=None, features=flat), cameras, c.backend, **how)
        flatness = share.rgb / share.alpha.clamp_min(1e-6)
        assert out.normal is not None
        mixed = flatness * out.normal + (1.0 - flatness) * normals_of_depth(out, cameras)
        return replace(out, normal=torch.nn.functional.normalize(mixed, dim=-1))

    def regularisation(self, output: RenderOutput, progress: float) -> dict[str, Float[Tensor, ""]]:
        c, p = self.config, self._parameters
        terms: dict[str, Float[Tensor, ""]] = {}
        if c.weight_scale > 0:
            terms["scale"] = c.weight_scale * p["log_scales"].exp().mean()
        if c.weight_flat > 0:
            terms["flat"] = c.weight_flat * p["log_scales"].amin(dim=1).exp().mean()
        if c.weight_opacity > 0:
            terms["opacity"] = c.weight_opacity * p["opacities"].sigmoid().mean()
        if c.weight_entropy > 0:
            alpha = output.alpha.clamp(1e-3, 1.0 - 1e-3)
            entropy = -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log())
            terms["entropy"] = c.weight_entropy * entropy.mean()
        if c.weight_tv_rgb > 0:
            terms["tv_rgb"] = c.weight_tv_rgb * total_variation(output.rgb)
        if c.weight_tv_depth > 0:
            # Weighted by alpha, or the jump to the background's zero would dominate.
            terms["tv_depth"] = c.weight_tv_depth * total_variation(
                output.depth * output.alpha.detach()
            )
        return terms

    def density_control(
        self,
        optimizer: torch.optim.Optimizer,
        progress: float,
        step: int,
        generator: torch.Generator,
    ) -> None:
        c = self.config
        with torch.no_grad():
            self._parameters["colors"].clamp_(
                rgb_to_sh(torch.tensor(0.0)).item(), rgb_to_sh(torch.tensor(1.0)).item()
            )
            acts = c.density_from <= progress <= c.density_to
            due = acts and (step + 1) % c.density_every == 0
            if c.density == "relocate":
                if due:
                    self._apply(optimizer, relocate(self._raw(), c.max_count, c.growth, generator))
                if acts and c.noise > 0:
                    amount = c.noise * c.lr_means(progress)
                    self._parameters["means"].add_(
                        exploration_noise(self._raw(), amount, generator)
                    )
            elif c.density == "adaptive":
                self._collect()
                if due:
                    self._apply(optimizer, self._densified(generator))
                if acts and c.opacity_reset_every and (step + 1) % c.opacity_reset_every == 0:
                    self._parameters["opacities"].clamp_(max=math.log(0.1 / 0.9))

    def _raw(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self._parameters.items()}

    def _apply(self, optimizer: torch.optim.Optimizer, edit: Edit | None) -> None:
        if edit is None:
            return
        self._parameters = apply_edit(optimizer, self._parameters, edit)
        self._statistics = self._fresh_statistics()

    def _collect(self) -> None:
        """Add the screen gradients of the last step's renders to the statistics."""
        for probe, size in self._probes:
            # A probe without a gradient belongs to a skipped step or to a render nobody differentiated.
            if probe.grad is None or probe.shape[1] != len(self):
                continue
            # One that is not finite counts as zero; to ask would be to wait for a GPU.
            norm = probe.grad.norm(dim=-1) * (0.5 * size)
            norm = torch.where(torch.isfinite(norm).all(), norm, torch.zeros_like(norm))
            self._statistics["gradient_sum"] += norm.sum(dim=0)
            self._statistics["gradient_count"] += (norm > 0).sum(dim=0)
        self._probes = []

    def _densified(self, generator: torch.Generator) -> Edit:
        c = self.config
        rules = AdaptiveRules(
            c.split_gradient, c.split_scale, c.prune_opacity, c.prune_scale, c.max_count
        )
        mean = self._statistics["gradient_sum"] / self._statistics["gradient_count"].clamp_min(1.0)
        return densify(self._raw(), mean, rules, generator)

    def keep_within_budget(self, optimizer: torch.optim.Optimizer) -> None:
        """Drop the faintest splats beyond `max_count`: a resumed run may have had to lower it."""
        if len(self) <= self.config.max_count:
            return
        kept = self._parameters["opacities"].detach().topk(self.config.max_count).indices
        kept = kept.sort().values
        values = {name: value[kept] for name, value in self._raw().items()}
        self._apply(optimizer, Edit(values, kept))

    def to_mesh(self, resolution: int = 128, max_faces: int = 20_000) -> ColoredMesh:
        """A closed mesh with vertex colours; see `dream3d.scenes.splats_mesh.to_mesh`."""
        c = self.config
        return to_mesh(
            exportable(self.splats),
            resolution,
            max_faces,
            antialias=c.antialias,
            depth_at=c.depth_at,
            backend=c.backend,
        )

    def surface_colors(
        self, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "N 3"]:
        """As the renders show them, at `TEXTURE_VIEWS` pixels a side."""
        c, cameras = self.config, mesh_cameras(TEXTURE_VIEWS)
        if len(points) == 0:
            return points
        images = render_images(exportable(self.splats), cameras, c.antialias, c.depth_at, c.backend)
        where, facing = points.double().numpy(), normals.double().numpy()
        return torch.from_numpy(surface_colors(where, facing, cameras, images, SEEN_WITHIN))

    def to_splats(self) -> SplatData:
        return self.splats.detach()

    def state(self) -> dict[str, Tensor]:
        values = {**self._parameters, **self._statistics}
        return {name: value.detach().clone() for name, value in values.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        check_state(state, {**self._parameters, **self._statistics}, "splats", any_count=True)
        like = self._parameters["means"]
        self._parameters = {
            name: torch.nn.Parameter(state[name].to(like, copy=True)) for name in self._parameters
        }
        self._statistics = {name: state[name].to(like, copy=True) for name in STATISTICS}
        self._probes = []


def total_variation(image: Float[Tensor, "B H W C"]) -> Float[Tensor, ""]:
    """Mean absolute difference of neighbouring pixels."""
    return (image[:, 1:] - image[:, :-1]).abs().mean() + (
        image[:, :, 1:] - image[:, :, :-1]
    ).abs().mean()


def exportable(splats: SplatData, min_opacity: float = 0.01) -> SplatData:
    """The splats worth writing to a file: finite in every parameter and at least `min_opacity` opaque."""
    good = splats.opacity_logits.sigmoid() >= min_opacity
    for value in splats.tensors().values():
        good &= torch.isfinite(value.reshape(len(splats), -1)).all(dim=1)
    return splats.detach().select(good)
