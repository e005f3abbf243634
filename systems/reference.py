"""A picture the object must look like from one side: losses at the reference camera, beside the guidance.

    w_rgb mean |C - C_ref|^2 + w_mask mean (A - A_ref)^2        C premultiplied colour, A coverage

As in Magic123 (Qian et al. 2023, arXiv 2306.17843) and threestudio's Zero123 system; the guidance sees to the other
sides. The picture's own camera is not known: it is said to be on the orbit the settings name.
"""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from dream3d.cameras import CameraBatch, orbit_cameras
from dream3d.cut_out import cut_out
from dream3d.errors import ConfigError
from dream3d.picture_file import pixel_digest, read_picture, write_picture
from dream3d.rendering import RenderOutput
from dream3d.schedules import Ramp, constant


@dataclass(frozen=True)
class ReferenceSettings:
    """The picture of a run and how it is used.

    Attributes:
        image: a file; empty for no picture. Its background is transparent, or plain.
        azimuth_deg: from where the picture was taken: 0 is the object's front, positive toward its own left.
        elevation_deg: how high above the horizon, in [-90, 90].
        distance: of that camera from the object's middle, in object radii.
        fovy_deg: its vertical field of view.
        fill: the object is moved to the middle and scaled until the larger side of its box is this share of the frame;
            0 keeps the picture's own framing.
        weight_rgb: of the colour term; the guidance's gradient counts per latent entry.
        weight_mask: of the coverage term.
        every: steps from one look at the picture to the next.
        sha256: of the picture's pixels, filled in by the run; empty accepts any.
    """

    image: str = ""
    azimuth_deg: float = 0.0
    elevation_deg: float = 15.0
    distance: float = 3.2
    fovy_deg: float = 40.0
    fill: float = 0.8
    weight_rgb: Ramp = field(default_factory=lambda: constant(10.0))
    weight_mask: Ramp = field(default_factory=lambda: constant(10.0))
    every: int = 1
    sha256: str = ""

    def __post_init__(self) -> None:
        for name, low, high in (
            ("azimuth_deg", -360.0, 360.0),
            ("elevation_deg", -90.0, 90.0),
            ("distance", 1.01, 100.0),
            ("fovy_deg", 1.0, 170.0),
            ("fill", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; choose a value in [{low:g}, {high:g}]")
        for name in ("weight_rgb", "weight_mask"):
            ramp: Ramp = getattr(self, name)
            for value in (ramp.initial, ramp.final):
                if not 0.0 <= value < math.inf:
                    raise ConfigError(f"{name} is {value}; choose 0 (off) or a positive weight")
        if self.every < 1:
            raise ConfigError(f"every is {self.every}; it must be at least 1")

    def camera(self, size: int) -> CameraBatch:
        """The one camera the picture was taken with, for an image of `size` pixels a side."""
        return orbit_cameras(
            [self.azimuth_deg], self.elevation_deg, self.distance, self.fovy_deg, size
        )


class Reference:
    """A loaded picture.

    Args:
        settings: as configured; `image` names a file.

    Raises:
        PictureError: the file is no usable picture, or not the one whose `sha256` the settings have.
    """

    def __init__(self, settings: ReferenceSettings) -> None:
        self.settings = settings
        self.pixels = read_picture(settings.image)
        self.sha256 = pixel_digest(self.pixels)
        if settings.sha256 not in ("", self.sha256):
            raise ConfigError(
                f"{settings.image} is not the picture this run began with; put that one back, or begin a new run with "
                "--image"
            )
        found = torch.from_numpy(cut_out(self.pixels, settings.image))
        color, alpha = found[..., :3] * found[..., 3:], found[..., 3:]
        self._square = _framed(torch.cat([color, alpha], dim=-1), settings.fill)
        self._scaled: dict[tuple[int, torch.device], RenderOutput] = {}

    @property
    def silent(self) -> bool:
        """Whether no loss compares renders with the picture; it then speaks through the prior alone."""
        ramps = (self.settings.weight_rgb, self.settings.weight_mask)
        return all(ramp.initial == ramp.final == 0.0 for ramp in ramps)

    def picture(self, size: int, device: torch.device) -> RenderOutput:
        """The picture as a render of `size` pixels a side should be; depth is 0, because it is not known."""
        key = (size, device)
        if key not in self._scaled:
            image = self._square.permute(2, 0, 1)[None]
            scaled = interpolate(image, (size, size), mode="bilinear", antialias=True)
            rgba = scaled[0].permute(1, 2, 0)[None].clamp(0.0, 1.0).to(device)
            alpha = rgba[..., 3:]
            self._scaled[key] = RenderOutput(rgba[..., :3], alpha, torch.zeros_like(alpha))
        return self._scaled[key]

    def losses(
        self, rgb: Float[Tensor, "1 S S 3"], alpha: Float[Tensor, "1 S S 1"], progress: float
    ) -> dict[str, Float[Tensor, ""]]:
        """Weighted terms for a render through the reference camera.

        Args:
            rgb: premultiplied colour.
            alpha: coverage.
            progress: fraction of the stage that is done.
        """
        truth, s = self.picture(rgb.shape[1], rgb.device), self.settings
        return {
            "reference_rgb": s.weight_rgb(progress) * (rgb - truth.rgb).square().mean(),
            "reference_mask": s.weight_mask(progress) * (alpha - truth.alpha).square().mean(),
        }


def _framed(image: Float[Tensor, "H W 4"], fill: float) -> Float[Tensor, "S S 4"]:
    """The picture made square by transparent margins; with `fill`, the object's box in its middle."""
    height, width = image.shape[:2]
    top, bottom, left, right = 0, height, 0, width
    side = max(height, width)
    if fill > 0.0:
        covered = image[..., 3] > 0.5
        rows, columns = covered.any(dim=1).nonzero(), covered.any(dim=0).nonzero()
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        left, right = int(columns[0]), int(columns[-1]) + 1
        side = max(1, round(max(bottom - top, right - left) / fill))
    y, x = round((top + bottom - side) / 2), round((left + right - side) / 2)
    # A negative margin cuts away what lies outside the frame.
    margins = (-x, x + side - width, -y, y + side - height)
    return pad(image.permute(2, 0, 1), margins).permute(1, 2, 0)


PICTURE = "reference.png"
"""What a run's own copy of its picture is called."""


def with_picture(settings: ReferenceSettings, image: Path | str | None) -> ReferenceSettings:
    """The settings for another picture; None leaves them as they are."""
    return settings if image is None else replace(settings, image=str(image), sha256="")


def load_reference(settings: ReferenceSettings) -> Reference | None:
    """The picture the settings name; None where they name none."""
    return Reference(settings) if settings.image else None


def kept(reference: Reference | None, settings: ReferenceSettings) -> ReferenceSettings:
    """The settings as a directory's own config.yaml has them: the picture by its copy there, and by its hash."""
    if reference is None:
        return settings
    return replace(reference.settings, image=PICTURE, sha256=reference.sha256)


def keep(reference: Reference | None, directory: Path) -> None:
    """Write the copy that `kept` speaks of, upright and without metadata; without a picture, nothing.

    Raises:
        OutputError: it cannot be written.
    """
    if reference is not None:
        write_picture(directory / PICTURE, reference.pixels)
