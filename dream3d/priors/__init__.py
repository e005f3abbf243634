"""Diffusion priors: networks and closed forms that know what images look like, behind one interface."""

from dream3d.priors.base import PRIORS, Condition, Prior, PriorConfig

__all__ = ["PRIORS", "Condition", "Prior", "PriorConfig"]
