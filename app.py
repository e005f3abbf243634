"""The web page of dream3d: `python app.py`, then open the address it prints.

Served to this machine only. What it makes stays in outputs/app; closing the page or stopping the server does not end a
run that was begun.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent / "outputs" / "app"


def main() -> int:
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    parser.add_argument("--port", type=int, default=7860, help="1 to 65535 (default: 7860)")
    parser.add_argument("--root", type=Path, default=ROOT, help="where jobs are kept")
    arguments = parser.parse_args()
    if not 1 <= arguments.port <= 65535:
        parser.error(f"--port is {arguments.port}; choose 1 to 65535")
    with tempfile.TemporaryDirectory(prefix="dream3d-app-") as cache:
        # Gradio copies what it serves here; of its own, so that nobody else's files lie in it.
        os.environ["GRADIO_TEMP_DIR"] = cache
        try:
            from dream3d.ui.page import build_page, launch_options
        except ImportError as error:
            print(f"app.py needs {error.name}: pip install 'dream3d[ui]'", file=sys.stderr)
            return 2
        from dream3d.errors import Dream3DError
        from dream3d.files import make_directory
        from dream3d.jobs import JobStore

        try:
            make_directory(arguments.root)
        except Dream3DError as error:
            print(f"app.py: {error}", file=sys.stderr)
            return 2
        page = build_page(JobStore(arguments.root))
        page.queue(max_size=16).launch(server_port=arguments.port, **launch_options(arguments.root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
