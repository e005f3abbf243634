"""What a network is told about a camera: a few tokens beside those of the text."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from dream3d.cameras import CameraBatch

AZIMUTH_HARMONICS = (1, 2, 4)
DISTANCE_SCALE = 3.2
"""Typical distance and field of view; features are 1 there."""
FOV_SCALE_DEG = 40.0
FEATURES = 2 * len(AZIMUTH_HARMONICS) + 2 + 2


def camera_features(cameras: CameraBatch) -> Float[Tensor, "B F"]:
    """Smooth numbers of order one that describe an upright pose looking at the origin.

    Read from the pose itself, not from the orbit's angles, which are unknown where a pose was given directly. The
    azimuth comes from the camera's right-hand axis, which stays defined straight overhead.

    Returns:
        sin and cos of 1, 2 and 4 times the azimuth (the eight named views are 45 degrees apart), sin and cos of the
        elevation, distance / 3.2, vertical field of view / 40 degrees.
    """
    right, forward = cameras.c2w[:, :3, 0], cameras.c2w[:, :3, 2]
    azimuth = torch.atan2(-right[:, 2], right[:, 0])
    elevation = torch.asin((-forward[:, 1]).clamp(-1.0, 1.0))
    angles = [harmonic * azimuth for harmonic in AZIMUTH_HARMONICS] + [elevation]
    waves = [wave for angle in angles for wave in (angle.sin(), angle.cos())]
    distance = cameras.position.norm(dim=-1) / DISTANCE_SCALE
    return torch.stack([*waves, distance, cameras.fovy_deg / FOV_SCALE_DEG], dim=-1)


class CameraEncoder(ModelMixin, ConfigMixin):
    """A perceptron from camera features to tokens for cross-attention; left out, the model is text-only.

    Args:
        tokens: how many tokens describe one camera.
        token_dim: their width, the text encoder's.
        hidden_dim: width of the hidden layer.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(self, tokens: int = 4, token_dim: int = 128, hidden_dim: int = 256) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, tokens * token_dim),
        )
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B K D"]:
        """Tokens from `camera_features`."""
        tokens = self.layers(features).unflatten(-1, (-1, self.config["token_dim"]))
        return self.norm(tokens)
