"""The web page of dream3d: `python app.py`, then open the address it prints. The same as `dream3d ui`."""

import sys

from dream3d.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ui", *sys.argv[1:]]))
