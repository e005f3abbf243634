"""What a process of ours does first: the command line's and the workers'."""

import atexit
import gc


def collect_seldom() -> None:
    """Look for garbage less often, and not once more when the process ends.

    Torch and diffusers make a million objects that stay. Python looked through them for garbage again and again while
    they were made, which took a second, and at the end, which took another. What is not freed then goes with it.
    """
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
