"""Every guidance on splats under the embedded prior, at one number of network evaluations for all.

Four prompts of things with a front, two of them without a colour, two seeds each; words are all the prior is told of a
view, which is how most published rules are used and where a second face can grow. Finished rows are lines of a journal:
the same command again does what is missing.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.evaluation.alignment import is_janus, recall, views_right
from dream3d.evaluation.classifier import COLOR_NAMES, Evaluator, Reading
from dream3d.evaluation.images import frechet_distance, saturation
from dream3d.evaluation.measure import rendered, ring_cameras
from dream3d.noise_sources import FixedNoise, FreshNoise
from dream3d.prior_training.sampling import sample
from dream3d.priors.base import Prior
from dream3d.prompts import view_words, with_view
from dream3d.scenes.base import Scene
from dream3d.scenes.splats import SplatsConfig
from dream3d.schedules import constant
from dream3d.time_samplers import AnnealedTime
from dream3d.world.grammar import parse
from guidance.base import GUIDANCE, Guidance
from systems.base import Stage

FORMAT_VERSION = 1
PROMPTS = ("a red robot", "a blue car", "a cat", "a house")
SEEDS = (0, 1)
BUDGET = 800
"""Network evaluations of one picture each, per run: 100 steps of four views at two evaluations."""
VIEWS = 4
SIZE = 64
PICTURE = 96
SAMPLES = 16
"""Pictures of the prior a row is compared with, as many as its own views: the distance is biased by the number."""


@dataclass(frozen=True)
class Method:
    """A line of the table: a guidance and what is set in it.

    Attributes:
        label: unique name of the line.
        name: of the guidance.
        settings: beside its defaults.
    """

    label: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def guidance(self) -> Guidance:
        """The rule with its settings."""
        return GUIDANCE[self.name](**self.settings)


def methods() -> list[Method]:
    """Every registered guidance with its defaults, and the settings that published claims are about."""
    extra = [
        Method("sds, scale 3", "sds", {"cfg_scale": constant(3.0)}),
        Method("sds, scale 30", "sds", {"cfg_scale": constant(30.0)}),
        Method("vsd, rate 1e-3", "vsd", {"companion_rate": 1e-3}),
        Method("esd, rate 1e-3", "esd", {"companion_rate": 1e-3}),
    ]
    return sorted([Method(n, n) for n in GUIDANCE.names()] + extra, key=lambda method: method.label)


def stage_of(guidance: Guidance, steps: int) -> Stage:
    """The common course: time from 0.98 to 0.2, jittered unless the rule's time must fall."""
    falls = guidance.needs_falling_time
    return Stage(
        guidance,
        SplatsConfig(),
        time=AnnealedTime(0.98, 0.2, "linear", 0.0 if falls else 0.1),
        noise=FixedNoise() if falls else FreshNoise(),
        steps=steps,
        views=VIEWS,
        render_size=SIZE,
        conditioning="text",
        preview_every=10**6,
        checkpoint_every=0,
    )


def course_cost(guidance: Guidance, steps: int) -> int:
    """Network evaluations of a whole run, a companion's training step counted as one per view."""
    learns = int(guidance.companion_settings() is not None)
    time_of = stage_of(guidance, steps).time
    generator = torch.Generator().manual_seed(0)
    total = 0
    for step in range(steps):
        t = time_of(VIEWS, step / steps, generator).max().item()
        total += VIEWS * (guidance.evaluations(t, step / steps) + learns)
    return total


def steps_for(guidance: Guidance, budget: int) -> int:
    """The number of steps whose cost comes nearest to the budget; at least 1."""
    steps = 8
    for _ in range(6):
        steps = max(1, round(steps * budget / course_cost(guidance, steps)))
    return steps


def ring_prompts(prompt: str) -> tuple[list[str], CameraBatch]:
    """What the prior is told about each of the measured views."""
    cameras = ring_cameras()
    angles = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
    return [with_view(prompt, view_words(*pair)) for pair in angles], cameras


def prior_features(prior: Prior, prompt: str, evaluator: Evaluator) -> Float[Tensor, "N D"]:
    """Features of the prior's own pictures of the measured views."""
    texts, _ = ring_prompts(prompt)
    pictures = sample(prior, texts, generator=torch.Generator().manual_seed(7))
    return evaluator.read(pictures).features


def numbers(
    scene: Scene, prompt: str, evaluator: Evaluator, own: Float[Tensor, "N D"]
) -> dict[str, Any]:
    """What one finished scene shows, from 16 views.

    alignment: attributes of the prompt recalled, mean over the views, in [0, 1].
    category: share of the views in which the category is read.
    view: share of the eight level views read as the side they are.
    janus: whether the front shows in more than one place.
    saturation: mean of (largest - smallest channel) over the asset's pixels.
    frechet: distance of the views' features to those of the prior's own pictures under the same words.
    color: distribution over colours, mean over the views.
    """
    ring = rendered(scene, ring_cameras())
    reading = evaluator.read_render(ring)
    azimuth = ring_cameras().azimuth_deg
    recalled = recall(parse(prompt), reading)
    background = torch.full((1, 1, 1, 3), 0.5)
    features = evaluator.read(ring.over(background).clamp(0.0, 1.0)).features
    return {
        "alignment": recalled.share.mean().item(),
        "category": recalled.category.mean().item(),
        "view": views_right(reading[slice(0, 8)], azimuth[:8]).mean().item(),
        "janus": is_janus(reading, azimuth),
        "saturation": saturation(ring.rgb, ring.alpha),
        "coverage": ring.alpha.mean().item(),
        "frechet": frechet_distance(features, own),
        "color": color_shares(reading),
    }


def color_shares(reading: Reading) -> list[float]:
    """How often each colour is read, over the views."""
    votes = torch.bincount(reading.color_1.argmax(-1), minlength=len(COLOR_NAMES)).double()
    return (votes / votes.sum()).tolist()


def picture(scene: Scene) -> Float[Tensor, "H W 3"]:
    """The asset from the front and, beside it, from behind."""
    cameras = orbit_cameras([20.0, 200.0], 15.0, size=PICTURE)
    views = rendered(scene, cameras).over(torch.full((1, 1, 1, 3), 0.96))
    return torch.cat(list(views), dim=1).clamp(0.0, 1.0)


def key_of(row: dict[str, Any]) -> str:
    """Identifies a row of one budget."""
    return f"{row['method']} | {row['prompt']} | {row['seed']} | {row['budget']}"


def read_rows(journal: Path) -> dict[str, dict[str, Any]]:
    """Finished rows by key; a half-written last line is ignored."""
    rows: dict[str, dict[str, Any]] = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows[key_of(row)] = row
    return rows
