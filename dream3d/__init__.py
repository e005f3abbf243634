"""dream3d: text becomes a 3D asset by score distillation.

`dream3d.generate("a red mug")` runs one prompt; the command line (`dream3d --help`) does the same. Importing the
package is light: torch is loaded when something is generated.
"""

import os
from typing import TYPE_CHECKING, Any

# Torch's and numba's threads share the cores. Waiting by spinning for long makes either starve the other (a prior call
# took ten times as long); sleeping at once makes a second thread useless, because a network's operations are shorter
# than it takes to wake one (two cores: 75 ms a call, one alone 75, with this 51). So a thread of GNU's OpenMP, which
# torch has on Linux, spins some 0.1 ms first. Both are read when an OpenMP runtime loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

if TYPE_CHECKING:
    from dream3d.api import generate, resume

__version__ = "0.1.0"
__all__ = ["__version__", "generate", "resume"]


def __getattr__(name: str) -> Any:
    if name in ("generate", "resume"):
        from dream3d import api

        return getattr(api, name)
    raise AttributeError(f"module 'dream3d' has no attribute '{name}'")
