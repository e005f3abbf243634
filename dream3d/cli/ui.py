"""`dream3d ui`: the web page."""

import argparse
import sys
from pathlib import Path

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say
from dream3d.errors import ConfigError

DESCRIPTION = """Serve the web page until Ctrl-C. Runs go on when the page is closed and when the server stops.

  dream3d ui
  dream3d ui --port 8080 --root ~/dreams
  dream3d ui --listen 0.0.0.0
  dream3d ui --listen 0.0.0.0 --users users.txt

By default only this machine's own browser can open it. --listen opens it to others, who need a name and a password:
those of --users, a file of name:password lines that only you can read (chmod 600), where everybody sees their own
jobs only; or else one pair that is made at every start and printed. Passwords travel as they are: put a proxy with
TLS in front of it on a network you do not trust.
"""

ROOT = Path("outputs") / "app"


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = DESCRIPTION
    parser.add_argument("--port", type=int, default=7860, help="1 to 65535 (default: 7860)")
    parser.add_argument("--root", type=Path, default=ROOT, help=f"of the jobs (default: {ROOT})")
    parser.add_argument("--listen", metavar="ADDRESS", help="open it to others, with a password")
    parser.add_argument("--users", type=Path, metavar="FILE", help="name:password, one a line")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Serve."""
    if not 1 <= arguments.port <= 65535:
        raise UsageError(f"--port is {arguments.port}; choose 1 to 65535")
    say("loading the web page")
    try:
        from dream3d.ui.serve import admitted, serve
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("gradio", "fastapi", "uvicorn", "starlette"):
            raise
        message = f"the web page needs {error.name}; pip install 'dream3d[ui]'"
        raise ConfigError(message) from error

    access = admitted(arguments.listen, arguments.users)

    def tell(url: str) -> None:
        print(f"Open {url} in a browser. Ctrl-C stops the page, not the runs.", file=sys.stderr)
        if arguments.users is None:
            for name, password in access.users.items():
                print(f"Name: {name}  Password: {password}  (until it stops)", file=sys.stderr)

    serve(arguments.root, arguments.listen, arguments.port, access, tell)
    return Outcome({"status": "stopped"})
