"""Score distillation: one file per algorithm, each a rule that turns a prior's prediction into a gradient."""

from guidance.base import GUIDANCE, Guidance, GuidanceOutput, Views, gradient_as_loss

__all__ = ["GUIDANCE", "Guidance", "GuidanceOutput", "Views", "gradient_as_loss"]
