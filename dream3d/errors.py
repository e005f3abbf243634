"""Errors a user can cause or cure. Each message says what, the value got, what is allowed, and the remedy.

The command line prints these without a traceback; anything else that escapes is a bug and keeps its traceback.
"""


class Dream3DError(Exception):
    """Base of every error that is meant for the user."""


class ConfigError(Dream3DError):
    """A configuration key or value is unknown, malformed or contradicts another one."""


class PromptError(Dream3DError):
    """The prompt cannot be used, or the chosen prior does not know some of its words."""


class PictureError(Dream3DError):
    """A picture cannot be read, or shows no object that can be told from its background."""


class ModelError(Dream3DError):
    """A prior's weights are missing, damaged or of the wrong kind."""


class CheckpointError(Dream3DError):
    """No usable checkpoint: missing, truncated, or written by another format version."""


class OutputError(Dream3DError):
    """A result cannot be written: directory not writable, disk full."""


class AssetError(Dream3DError):
    """A 3D asset is empty or not finite and is therefore not exported."""


class NumericsError(Dream3DError):
    """The optimisation produced values that are not finite."""


class BackendError(Dream3DError):
    """A package or program that was asked for is missing, or does not work on this machine."""


class Cancelled(Dream3DError):
    """The run was asked to stop; what it had made is on disk."""
