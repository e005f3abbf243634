"""Training the embedded prior on the procedural world, and drawing samples from any prior."""

from dream3d.prior_training.config import TrainingConfig
from dream3d.prior_training.sampling import sample
from dream3d.prior_training.train import train

__all__ = ["TrainingConfig", "sample", "train"]
