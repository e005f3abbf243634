"""Parts: the solids every object of the procedural world is made of.

An object is an ordered list of parts in its own frame (+Y up, front +Z). Each part is a solid with one colour. Parts
are united in order; a part with `carve=True` is subtracted from everything before it (the hollow of a mug) and paints
the surface it cuts. The list is the ground truth: signed distance, mesh and images all follow from it.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["box", "ellipsoid", "frustum", "torus", "capsule", "prism"]
KINDS: tuple[Kind, ...] = ("box", "ellipsoid", "frustum", "torus", "capsule", "prism")


@dataclass(frozen=True)
class Part:
    """One coloured solid.

    Attributes:
        kind: which solid; decides what `size` means (all lengths in the object's frame, before normalisation):
            box       (half x, half y, half z)
            ellipsoid (radius x, radius y, radius z); a sphere has three equal ones
            frustum   (bottom radius, half height, top radius), axis +Y; equal radii = cylinder, top radius 0 = cone
            torus     (ring radius, tube radius, unused), ring around +Y
            capsule   (radius, half length of the straight part, unused), axis +Y
            prism     (half base x, half height y, half depth z): isosceles triangle in XY with its base at y = -height,
                      apex at (0, +height), extruded along Z
        size: three numbers as above.
        color: a name of `colors.COLORS` or an sRGB triple in [0, 1].
        position: centre of the solid.
        rotation_deg: turns about X, then Y, then Z (extrinsic), applied before the translation.
        rounding: radius by which edges are rounded, kept inside the nominal size; box, frustum and prism only.
        carve: subtract instead of unite.
        marker: part of what makes the front recognisable (a face, headlights, a door); seen only from the front.
        main: takes the colour the prompt names.
    """

    kind: Kind
    size: tuple[float, float, float]
    color: str | tuple[float, float, float]
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rounding: float = 0.0
    carve: bool = False
    marker: bool = False
    main: bool = False
