"""Every guidance on one number: particles under the exact scores of a mixture of two Gaussians.

The mixture is 0.3 N(-2, 0.25^2) + 0.7 N(2, 0.4^2); the noise levels are Stable Diffusion's; 1500 particles start from
N(0, 9) and are moved by plain gradient descent. Two cases: "plain", where prompt and empty prompt are the mixture and
the scale is 1, and "guided", where the prompt is the right Gaussian, the empty prompt the mixture and the scale 7.5. A
sampler would reproduce the density; a mode seeker collapses; a rule without an anchor runs away.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.bootstrap import improved
from dream3d.cameras import orbit_cameras
from dream3d.companion import Companion, CompanionPair
from dream3d.diffusion import Prediction, TableSchedule
from dream3d.errors import NumericsError
from dream3d.priors.base import Condition, Prior
from dream3d.schedules import constant
from guidance.base import GUIDANCE, Guidance, Views

Case = Literal["plain", "guided"]
CASES: tuple[Case, ...] = ("plain", "guided")
SCALE: dict[Case, float] = {"plain": 1.0, "guided": 7.5}
PARTICLES = 1500
EMPTY, PROMPT = 0.0, 1.0  # the tokens of the two prompts
T_LEAST, T_MOST = 0.02, 0.98
FEW = 15  # fewer particles than these have no spread worth telling


@dataclass(frozen=True)
class Mixture:
    """A density on the line: weights, means and standard deviations of its Gaussians."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def _each(self, x: Float[Tensor, " N"]) -> tuple[Tensor, torch.distributions.Normal]:
        means, stds = torch.tensor(self.means).to(x), torch.tensor(self.stds).to(x)
        return torch.tensor(self.weights).to(x), torch.distributions.Normal(means, stds)

    def density(self, x: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Probability density."""
        weights, normals = self._each(x)
        return (weights * normals.log_prob(x[:, None]).exp()).sum(1)

    def below(self, x: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Cumulative probability."""
        weights, normals = self._each(x)
        return (weights * normals.cdf(x[:, None])).sum(1)

    def distance(self, x: Float[Tensor, " N"]) -> float:
        """Kolmogorov-Smirnov distance of a sample: the largest gap between the two cumulative curves, in [0, 1]."""
        expected = self.below(x.sort().values)
        ladder = torch.linspace(0.0, 1.0, len(x) + 1).to(expected)
        return (
            torch.maximum((ladder[1:] - expected).abs(), (expected - ladder[:-1]).abs())
            .max()
            .item()
        )


BOTH = Mixture((0.3, 0.7), (-2.0, 2.0), (0.25, 0.4))
RIGHT = Mixture((1.0,), (2.0,), (0.4,))
TARGET: dict[Case, Mixture] = {"plain": BOTH, "guided": RIGHT}


def stable_diffusion_schedule() -> TableSchedule:
    """Stable Diffusion's 1000 levels: squares of evenly spaced roots between 0.00085 and 0.012."""
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64)
    return TableSchedule((1.0 - roots**2).cumprod(0))


class ToyPrior(Prior):
    """The exact noise prediction of mixtures on the line; the empty prompt is BOTH.

    Args:
        prompt: what the prompt stands for.
    """

    def __init__(self, prompt: Mixture) -> None:
        self.schedule = stable_diffusion_schedule()
        self.latent_shape = (1, 1, 1)
        self.image_size = 1
        self.prompt = prompt

    def check_prompt(self, prompt: str) -> None:
        """Any text will do."""

    def embed(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        marks = [PROMPT if prompt else EMPTY for prompt in prompts]
        return torch.tensor(marks, dtype=torch.float64).reshape(-1, 1, 1)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        raise NotImplementedError("the toy's latents are plain numbers")

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        raise NotImplementedError("the toy's latents are plain numbers")

    def predict(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        alpha, sigma = self.schedule.levels(t, z_t)
        asked = condition.tokens.reshape(-1, 1, 1, 1) == PROMPT
        eps = self._eps(BOTH, z_t, alpha, sigma)
        if self.prompt is not BOTH:
            eps = torch.where(asked, self._eps(self.prompt, z_t, alpha, sigma), eps)
        return Prediction(eps, "eps", z_t, alpha, sigma)

    @staticmethod
    def _eps(mixture: Mixture, z_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        means, stds = torch.tensor(mixture.means).to(z_t), torch.tensor(mixture.stds).to(z_t)
        residual = z_t - alpha * means  # [B, 1, 1, K]
        variance = (alpha * stds) ** 2 + sigma**2
        logits = torch.tensor(mixture.weights).to(z_t).log() - 0.5 * variance.log()
        share = torch.softmax(logits - 0.5 * residual**2 / variance, dim=-1)
        return sigma * (share * residual / variance).sum(-1, keepdim=True)


class ParticleCompanion(Companion):
    """The exact score of the particles as they are: of all of them, or, with a camera told, of each by itself.

    Args:
        particles: [N, 1, 1, 1].
        schedule: of the noise.
    """

    def __init__(self, particles: Float[Tensor, "N 1 1 1"], schedule: TableSchedule) -> None:
        self.particles, self.schedule = particles, schedule

    def parameters(self) -> dict[str, Tensor]:
        return {}

    def output(
        self, z_t: Float[Tensor, "B C h w"], t: Float[Tensor, " B"], condition: Condition
    ) -> Prediction:
        alpha, sigma = self.schedule.levels(t, z_t)
        if condition.cameras is not None:
            return Prediction(self.particles, "x0", z_t, alpha, sigma)
        x, a, s = self.particles.flatten(), alpha.flatten()[:, None], sigma.flatten()[:, None]
        share = torch.softmax(-0.5 * ((z_t.flatten()[:, None] - a * x) / s) ** 2, dim=1)
        return Prediction((share @ x).reshape(z_t.shape), "x0", z_t, alpha, sigma)


@dataclass(frozen=True)
class Recipe:
    """How a rule is run here, where it differs from the common way.

    Attributes:
        time: "uniform" draws a level per particle and step; "annealed" lowers one level for all, evenly in t.
        noise: drawn anew in every step, or once.
        renewed: share of the one noise that is renewed in every step (gamma of CFD's stochastic form).
        rate: first step size, falling linearly to 0, so that what is left is the rule's and not the steps' spread;
            None is the fall of lambda, which makes descent an Euler step of the prior's flow.
        steps: descent steps.
        settings: of the guidance, beside scale and weight.
        cameras: every particle is seen from a camera of its own, and a companion is told which.
    """

    time: Literal["uniform", "annealed"] = "uniform"
    noise: Literal["fresh", "fixed"] = "fresh"
    rate: float | None = 0.025
    steps: int = 2500
    settings: tuple[tuple[str, Any], ...] = ()
    cameras: bool = False
    renewed: float = 0.0


COMMON = Recipe()
RECIPES: dict[str, Recipe] = {
    "asynchronous-score": Recipe(rate=0.5, steps=1000),
    "balanced-score": Recipe(rate=0.2, steps=600),
    "bootstrapped-score": Recipe(rate=0.1, steps=600, settings=(("augment_steps", 8),)),
    "cfd": Recipe("annealed", "fixed", None, 500),
    "classifier-score": Recipe(rate=0.2, steps=600),
    "classifier-score-inverted": Recipe("annealed", rate=0.2, steps=600),
    "esd": Recipe(rate=0.1, steps=600, settings=(("entropy", 0.8),), cameras=True),
    "flow-inversion": Recipe(
        "annealed", rate=0.1, steps=300, settings=(("steps", 10), ("warm_up", 0.0))
    ),
    "ism": Recipe("annealed", rate=0.5, steps=500),
    "multistep": Recipe(steps=500, settings=(("weight", "lambda"),)),
    "ode-consistency": Recipe("annealed", "fixed", 0.5, 500),
    "pfd": Recipe(rate=0.2, steps=150, settings=(("up", 15), ("down", 15))),
    "score-difference": Recipe(rate=0.2, steps=600),
    "sdi": Recipe("annealed", rate=0.2, steps=300, settings=(("weight", "lambda"),)),
    "tsm": Recipe("annealed", rate=0.5, steps=500),
    "vsd": Recipe(rate=0.1, steps=600),
}


def configured(name: str, case: Case, recipe: Recipe) -> Guidance:
    """The guidance at the case's scale, with w(t) = 1 where it has a weight."""
    scale, cls = SCALE[case], GUIDANCE[name]
    shared = {
        "cfg_scale": constant(scale),
        "joint_scale": constant(scale),
        "inversion_scale": constant(1.0 if case == "plain" else -scale),
        "source_scale": constant(1.0 - scale),
        "weight": "uniform",
        "rescale": 0.0,
    }
    keys = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return cls(**{key: shared[key] for key in keys if key in shared} | dict(recipe.settings))


def levels(recipe: Recipe, count: int, draw: torch.Generator) -> Iterator[tuple[Tensor, float]]:
    """For every step the level of each particle and, for a flow, the fall of lambda to the next."""
    schedule = stable_diffusion_schedule()
    # A flow ends at the clean picture; other rules keep away from where the networks are not trained.
    last = 0.0 if recipe.rate is None else T_LEAST
    ladder = torch.linspace(T_MOST, last, recipe.steps + 1, dtype=torch.float64)
    heights = (schedule.sigma(ladder) / schedule.alpha(ladder)).tolist()
    for t, (here, after) in zip(ladder.tolist(), pairwise(heights), strict=False):
        if recipe.time == "annealed":
            yield torch.full((count,), t, dtype=torch.float64), here - after
        else:
            drawn = torch.rand(count, generator=draw, dtype=torch.float64)
            yield T_LEAST + (T_MOST - T_LEAST) * drawn, here - after


@dataclass(frozen=True)
class Outcome:
    """Where the particles of one method ended.

    Attributes:
        method: the guidance's name.
        case: "plain" or "guided".
        particles: [N].
        evaluations: network evaluations per particle and step, the mean over the run.
    """

    method: str
    case: Case
    particles: Float[Tensor, " N"]
    evaluations: float

    def row(self) -> dict[str, Any]:
        """The numbers: means and spreads left and right of 0 (null where almost nobody is), KS to the prompt."""
        x = self.particles
        left, right = x[x < 0], x[x >= 0]
        return {
            "method": self.method,
            "case": self.case,
            "mean": x.mean().item(),
            "std_left": left.std().item() if len(left) >= FEW else None,
            "std_right": right.std().item() if len(right) >= FEW else None,
            "share_right": len(right) / len(x),
            "ks": TARGET[self.case].distance(x),
            "evaluations": self.evaluations,
        }


def follow(
    guidance: Guidance, prior: Prior, recipe: Recipe, count: int, seed: int
) -> tuple[Float[Tensor, " N"], float]:
    """Descend; returns the particles and the mean number of evaluations per particle and step."""
    draw = torch.Generator().manual_seed(seed)
    normal = functools.partial(torch.randn, generator=draw, dtype=torch.float64)
    z, noise = 3.0 * normal(count, 1, 1, 1), normal(count, 1, 1, 1)
    condition = Condition(torch.full((count, 1, 1), PROMPT, dtype=torch.float64))
    empty = Condition(torch.full((count, 1, 1), EMPTY, dtype=torch.float64))
    plain = (
        replace(condition, cameras=orbit_cameras([0.0] * count)) if recipe.cameras else condition
    )
    schedule, evaluations = stable_diffusion_schedule(), 0
    for step, (t, fall) in enumerate(levels(recipe, count, draw)):
        if recipe.noise == "fresh":
            noise = normal(count, 1, 1, 1)
        elif recipe.renewed:
            kept = (1.0 - recipe.renewed) ** 0.5
            noise = kept * noise + recipe.renewed**0.5 * normal(count, 1, 1, 1)
        progress = step / recipe.steps
        exact: Companion = ParticleCompanion(z, schedule)
        settings = guidance.companion_settings()
        if settings is not None and settings.augment is not None:
            better = improved(prior, z, normal(count, 1, 1, 1), condition, settings.augment)
            exact = CompanionPair(exact, ParticleCompanion(better, schedule))
        views = Views(z, t, noise, condition, empty, None, progress, exact, plain)
        rate = fall if recipe.rate is None else recipe.rate * (1.0 - progress)
        z = z - rate * guidance(prior, views).grad
        evaluations += guidance.evaluations(t.max().item(), progress)
    return z.flatten(), evaluations / recipe.steps


def run_toy(
    methods: list[str],
    count: int = PARTICLES,
    seed: int = 0,
    report: Callable[[str], None] = lambda method: None,
) -> list[Outcome]:
    """Both cases of every method.

    Args:
        methods: names of registered guidances.
        count: particles.
        seed: of start and noise; the same for every method.
        report: told each method before it runs.

    Raises:
        ConfigError: an unknown method.
        NumericsError: a method's particles are not finite.
    """
    outcomes = []
    for name in methods:
        GUIDANCE[name]
        report(name)
        recipe = RECIPES.get(name, COMMON)
        for case in CASES:
            prior = ToyPrior(TARGET[case])
            particles, cost = follow(configured(name, case, recipe), prior, recipe, count, seed)
            lost = int((~particles.isfinite()).sum())
            if lost:
                raise NumericsError(
                    f"{name}, {case}: {lost} of {count} particles are no finite numbers. Latents are single numbers "
                    "here and in the plain case both prompts are equal, so differences and norms may be 0: guard "
                    "divisions by them; if it diverges, give it a smaller rate (RECIPES in dream3d/bench/toy.py)"
                )
            outcomes.append(Outcome(name, case, particles, cost))
    return outcomes
