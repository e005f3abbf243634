"""The evaluator: a small network that reads what an image shows.

It was trained on true renders of the procedural world and is never used in guidance. For up to two objects it reads
category and colour, how the two stand to each other, from which side the first is seen, and whether its front (a face,
a door, headlights) is in view. It can also say that the image shows no object of this world at all.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dream3d.errors import ModelError
from dream3d.rendering import RenderOutput
from dream3d.world.catalog import CATEGORIES
from dream3d.world.colors import COLORS
from dream3d.world.freeze import FROZEN_HASH

FORMAT_VERSION = 1
SIZE = 64
"""Side in pixels of the images the network reads."""
WEIGHTS = Path(__file__).parent / "weights" / "evaluator.safetensors"
CATEGORY_NAMES: tuple[str, ...] = tuple(sorted(CATEGORIES))
NOTHING = len(CATEGORY_NAMES)
"""The class after the last category: 'not an object' in the first slot, 'no second object' in the second."""
COLOR_NAMES: tuple[str, ...] = tuple(COLORS)
RELATIONS: tuple[str | None, ...] = (None, "on", "next to")
ELEVATIONS = ("low", "level", "high", "overhead")
"""Below 0, 0 to 30, 30 to 60 and above 60 degrees."""
AZIMUTH_BINS = 8
HEADS: dict[str, int] = {
    "category_1": NOTHING + 1,
    "category_2": NOTHING + 1,
    "color_1": len(COLOR_NAMES),
    "color_2": len(COLOR_NAMES),
    "relation": len(RELATIONS),
    "azimuth": AZIMUTH_BINS,
    "elevation": len(ELEVATIONS),
    "marker": 2,
}
# Two backgrounds no object's main colour comes near; reading both and averaging keeps an object from hiding in one.
BACKGROUNDS = ((0.36, 0.43, 0.55), (0.76, 0.69, 0.60))


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.second_norm(self.second(hidden)))


class Network(nn.Module):
    """Images [N, 3, 64, 64] in [0, 1] to features [N, D] and one row of logits per head.

    Args:
        channels: of the four levels, each half as wide as the one before.
        spatial: channels of the last 4 x 4 map that are read place by place.
    """

    def __init__(self, channels: Sequence[int], spatial: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        previous = 3
        for level, width in enumerate(channels):
            layers += [
                nn.Conv2d(previous, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            if level > 0:
                layers.append(Residual(width))
            previous = width
        self.trunk = nn.Sequential(*layers)
        self.places = nn.Conv2d(previous, spatial, 1)
        self.features = nn.Linear(2 * previous + 16 * spatial, previous)
        self.heads = nn.ModuleDict({name: nn.Linear(previous, n) for name, n in HEADS.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        maps = self.trunk(2.0 * images - 1.0)  # [N, C, 4, 4]
        # The mean says how much, the maximum whether (a small marker must not drown in the mean), and the places say
        # where: which colour belongs to which of two objects.
        places = torch.relu(self.places(maps)).flatten(1)
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3)), places], dim=1)
        features = torch.relu(self.features(pooled))
        return features, {name: head(features) for name, head in self.heads.items()}


@dataclass(frozen=True)
class Reading:
    """What the evaluator reads in N images, as probabilities.

    Attributes:
        category_1, category_2: over CATEGORY_NAMES and, last, NOTHING. The first object is the upper one of "A on B";
            the two of "A next to B" come in any order, because left and right swap with the view.
        color_1, color_2: over COLOR_NAMES; the colour the caption names.
        relation: over RELATIONS.
        azimuth: over the eight 45-degree bins around 0 (front), 45, ... 315; meant for objects with a front.
        elevation: over ELEVATIONS.
        marker: probability that the front's mark is in view.
        features: the last hidden layer, for distances between sets of images.
    """

    category_1: Float[Tensor, "N C"]
    category_2: Float[Tensor, "N C"]
    color_1: Float[Tensor, "N K"]
    color_2: Float[Tensor, "N K"]
    relation: Float[Tensor, "N R"]
    azimuth: Float[Tensor, "N A"]
    elevation: Float[Tensor, "N E"]
    marker: Float[Tensor, " N"]
    features: Float[Tensor, "N D"]

    def __len__(self) -> int:
        return len(self.marker)

    def __getitem__(self, index: slice | Tensor | list[int]) -> "Reading":
        return Reading(**{name: value[index] for name, value in vars(self).items()})


def to_reading(features: Tensor, logits: dict[str, Tensor]) -> Reading:
    """Network outputs as probabilities."""
    shares = {name: value.float().softmax(-1) for name, value in logits.items()}
    return Reading(**(shares | {"marker": shares["marker"][:, 1]}), features=features.float())


class Evaluator:
    """The trained network with what is known about it."""

    def __init__(self, network: Network, facts: dict[str, object]) -> None:
        self.network = network.eval().requires_grad_(False)
        self.facts = facts

    @torch.inference_mode()
    def read(self, images: Float[Tensor, "N H W 3"], batch: int = 256) -> Reading:
        """Read images in [0, 1] that have a background; other sizes than 64 are resampled."""
        pixels = images.float().permute(0, 3, 1, 2)
        if pixels.shape[-2:] != (SIZE, SIZE):
            pixels = nn.functional.interpolate(
                pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
            )
        parts = [
            to_reading(*self.network(chunk.clamp(0.0, 1.0).contiguous()))
            for chunk in pixels.split(batch)
        ]
        return Reading(
            **{name: torch.cat([getattr(p, name) for p in parts]) for name in vars(parts[0])}
        )

    def read_render(self, output: RenderOutput) -> Reading:
        """Read renders in front of each of BACKGROUNDS and average the probabilities."""
        readings = [
            self.read(output.over(torch.tensor(color).expand(1, 1, 1, 3)).clamp(0.0, 1.0))
            for color in BACKGROUNDS
        ]
        return Reading(
            **{
                name: torch.stack([getattr(r, name) for r in readings]).mean(0)
                for name in vars(readings[0])
            }
        )


def load_evaluator(path: Path | None = None) -> Evaluator:
    """The shipped evaluator, or one trained by `dream3d.evaluation.classifier_training`.

    Args:
        path: a .safetensors file with its .json beside it; None takes the shipped one.

    Raises:
        ModelError: missing or damaged files, or weights trained on another version of the procedural world.
    """
    weights = WEIGHTS if path is None else path
    try:
        facts = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        tensors = load_file(weights)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"the evaluator's weights {weights} cannot be read ({error}). "
            "Reinstall dream3d, or train them with dream3d.evaluation.classifier_training."
        ) from error
    if facts.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"the evaluator's weights {weights} have format version {facts.get('format_version')}; "
            f"this program reads version {FORMAT_VERSION}. Train them again."
        )
    if facts.get("world_hash") != FROZEN_HASH:
        raise ModelError(
            f"the evaluator's weights {weights} were trained on world {facts.get('world_hash')}, "
            f"the world is {FROZEN_HASH}. Train them again with "
            "dream3d.evaluation.classifier_training."
        )
    try:
        network = Network(tuple(facts["channels"]), facts["spatial"])
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"the evaluator's weights {weights} do not fit: {error}") from error
    return Evaluator(network, facts)
