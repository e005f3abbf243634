"""What of a picture is the object: its own transparency, or whatever differs from a plain background.

No network. The background is a plane in colour (even light, or a simple gradient) fitted to the picture's border;
everything of its colour that hangs together with the border is not object.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage as scipy_images

from dream3d.errors import PictureError

ndimage: Any = scipy_images  # its functions return different things by their flags

BORDER = 0.03
"""Width of the border that is looked at, as a share of the picture's side."""
TOLERANCE = 0.08
"""Largest difference per channel, of 1, at which a pixel still counts as background."""
PLAIN_SHARE = 0.7
"""Share of the border that must be of one plain colour; the rest may be an object that reaches the edge."""
_REMEDY = (
    "cut the object out and give a PNG with transparency; `rembg i in.png out.png` (pip install 'rembg[cpu,cli]') does "
    "it, as do most picture programs"
)


def cut_out(
    pixels: UInt8[np.ndarray, "H W 4"], name: str = "the picture"
) -> Float[np.ndarray, "H W 4"]:
    """Colour in [0, 1] and coverage of the object; not premultiplied.

    Args:
        pixels: as `read_picture` returns them. Where a hundredth of them is transparent, that is the answer.
        name: of the picture, for messages.

    Raises:
        PictureError: the background is not plain, or what is left is nothing, or everything.
    """
    image = pixels.astype(np.float32) / 255.0
    if (image[..., 3] < 0.98).mean() >= 0.01:
        found = image
    else:
        background, plain = border_plane(image[..., :3])
        if plain < PLAIN_SHARE:
            raise PictureError(
                f"{name} has no plain background: only {plain:.0%} of its border is of one colour; {_REMEDY}"
            )
        found = _keyed(image[..., :3], background)
    share = float((found[..., 3] > 0.5).mean())
    if not 0.002 <= share <= 0.98:
        what = "nothing stands out from its background" if share < 0.5 else "no background is left"
        raise PictureError(f"{name} shows no object: {what}; {_REMEDY}")
    return found


def border_plane(rgb: Float[np.ndarray, "H W 3"]) -> tuple[Float[np.ndarray, "H W 3"], float]:
    """The background's colour at every pixel, linear in place, and the share of the border that has it.

    Least squares over the border, thrice, each time without what does not fit: an object may reach the edge.
    """
    height, width = rgb.shape[:2]
    wide = max(2, round(BORDER * min(height, width)))
    ring = np.ones((height, width), dtype=bool)
    ring[wide:-wide, wide:-wide] = False
    y, x = np.meshgrid(
        np.linspace(-1.0, 1.0, height, dtype=np.float32),
        np.linspace(-1.0, 1.0, width, dtype=np.float32),
        indexing="ij",
    )
    place = np.stack([np.ones_like(x), x, y], axis=-1)
    at, color = place[ring], rgb[ring]
    plane = np.zeros((3, 3), dtype=np.float32)
    plane[0] = np.median(color, axis=0)
    fits = np.abs(color - at @ plane).max(axis=1) < 0.25
    for _ in range(3):
        if fits.sum() < 16:
            break
        plane = np.linalg.lstsq(at[fits], color[fits], rcond=None)[0].astype(np.float32)
        fits = np.abs(color - at @ plane).max(axis=1) < TOLERANCE
    return place @ plane, float(fits.mean())


def _keyed(
    rgb: Float[np.ndarray, "H W 3"], background: Float[np.ndarray, "H W 3"]
) -> Float[np.ndarray, "H W 4"]:
    """The object in front of `background`, edges mixed by how much of each colour they hold."""
    behind = _is_background(np.abs(rgb - background).max(axis=-1))
    depth = ndimage.distance_transform_edt(~behind)
    # Pixels at the edge hold both colours: the object's own is that of the nearest pixel further in.
    inner = depth > 2.0
    if not inner.any():
        return np.concatenate([rgb, (~behind)[..., None]], axis=-1).astype(np.float32)
    _, nearest = ndimage.distance_transform_edt(~inner, return_indices=True)
    own = rgb[nearest[0], nearest[1]]
    edge = (depth > 0.0) & ~inner
    contrast = own - background
    mix = ((rgb - background) * contrast).sum(-1) / np.maximum((contrast**2).sum(-1), 1e-4)
    alpha = np.where(edge, mix.clip(0.0, 1.0), inner)
    color = np.where(inner[..., None], rgb, own)
    return np.concatenate([color, alpha[..., None]], axis=-1).astype(np.float32)


def _is_background(difference: Float[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """What has the background's colour and hangs together with the border, and what lies inside but has it exactly."""
    regions, _ = ndimage.label(difference < TOLERANCE)
    rim = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    outside = np.isin(regions, np.setdiff1d(rim, [0]))
    # Seen through a handle the background is cut off from the border; a white label on white is less exact than that.
    inside, count = ndimage.label((difference < TOLERANCE / 4.0) & ~outside)
    if count:
        large = np.flatnonzero(np.bincount(inside.ravel()) >= max(9, difference.size // 5000))
        outside |= np.isin(inside, np.setdiff1d(large, [0]))
    return outside
