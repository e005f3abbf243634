"""`python -m dream3d` is the command line."""

import sys

from dream3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
