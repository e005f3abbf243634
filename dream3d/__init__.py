"""dream3d: text becomes a 3D asset by score distillation.

`dream3d.generate("a red mug")` runs one prompt; the command line (`dream3d --help`) does the same. Importing the
package is light: torch is loaded when something is generated.
"""

import os
from typing import TYPE_CHECKING, Any

# Torch's and numba's threads share the cores. Waiting by spinning makes either starve the other (a prior call took ten
# times as long), and must be turned off before an OpenMP runtime loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from dream3d.api import generate, resume

__version__ = "0.1.0"
__all__ = ["__version__", "generate", "resume"]


def __getattr__(name: str) -> Any:
    if name in ("generate", "resume"):
        from dream3d import api

        return getattr(api, name)
    raise AttributeError(f"module 'dream3d' has no attribute '{name}'")
