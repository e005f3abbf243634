"""Pre-commit hook: name the files above 1 MB and fail."""

import sys
from pathlib import Path

LIMIT_BYTES = 1_000_000

large = [name for name in sys.argv[1:] if Path(name).stat().st_size > LIMIT_BYTES]
for name in large:
    print(f"{name} is {Path(name).stat().st_size / 1e6:.1f} MB; the limit is 1 MB")
sys.exit(bool(large))
