"""`dream3d export`: what a run made, as a file of a chosen format."""

import argparse
from pathlib import Path

from dream3d.cli.options import Command, Outcome, Parser, say

DESCRIPTION = """Write what a run made as a file for other programs. The last line printed is the file.

  dream3d export outputs/a-red-mug-3f2a9c1e --format glb --texture-size 2048
  dream3d export outputs/a-red-mug-3f2a9c1e --format stl --watertight --out mug.stl

`dream3d list formats` shows the formats. Any scene can be written as any of them: what it is not, it is converted to.
"""


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    parser.description = DESCRIPTION
    add = parser.add_argument
    add("directory", type=Path, metavar="RUN", help="what `generate` printed")
    add("--format", required=True, metavar="F", help="`dream3d list formats`")
    add("--out", type=Path, metavar="FILE", help="default: in the run directory")
    add("--faces", type=int, metavar="N", help="triangles at most (default: 20000)")
    add("--texture-size", type=int, metavar="N", help="side of textures in pixels (default: 1024)")
    add("--watertight", action="store_true", default=None, help="close the mesh, or refuse it")
    add("--picture-size", type=int, metavar="N", help="side of films and views (default: 256)")
    add("--frames", type=int, metavar="N", help="pictures of films and views (default: 40)")
    add("--channel", metavar="C", help="what films show: rgb, normal or depth (default: rgb)")
    return run


def run(arguments: argparse.Namespace) -> Outcome:
    """Export."""
    say("loading")
    from dream3d.export.formats.base import ExportOptions
    from dream3d.export.run import export_run

    names = ("faces", "texture_size", "watertight", "picture_size", "frames", "channel")
    given = {name: getattr(arguments, name) for name in names}
    options = ExportOptions(**{name: value for name, value in given.items() if value is not None})
    made = export_run(arguments.directory, arguments.format, arguments.out, options)
    return Outcome({"status": "done", **vars(made), "path": str(made.path)}, str(made.path))
