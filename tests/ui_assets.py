"""A finished job made by hand, whose asset cannot be mistaken: red above, blue below, green toward +X."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dream3d.export.glb import write_glb
from dream3d.export.splat_ply import splat_arrays, write_splat_ply
from dream3d.files import write_json, write_text
from renderers.splats_data import SplatData

if TYPE_CHECKING:
    from dream3d.ui.server import Server

RED, BLUE, GREEN = (0.9, 0.05, 0.05), (0.05, 0.05, 0.9), (0.05, 0.7, 0.05)
BALLS = (((0.0, 0.55, 0.0), RED), ((0.0, -0.55, 0.0), BLUE), ((0.7, 0.0, 0.0), GREEN))
RADIUS = 0.3
