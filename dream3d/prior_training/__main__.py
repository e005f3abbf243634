"""`python -m dream3d.prior_training --minutes 10`: the same as `dream3d prior train`."""

import argparse
import sys

from dream3d.errors import Dream3DError
from dream3d.prior_training.config import add_arguments, from_arguments
from dream3d.prior_training.train import train

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dream3d.prior_training", description=__doc__)
    add_arguments(parser)
    try:
        print(train(from_arguments(parser.parse_args())))
    except Dream3DError as error:
        sys.exit(f"error: {error}")
