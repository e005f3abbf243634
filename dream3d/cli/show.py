"""`dream3d list`, `dream3d config` and `dream3d doctor`: what there is to choose, and what this machine has."""

import argparse

from dream3d.cli.options import Command, Outcome, Parser

KINDS = (
    *("presets", "priors", "scenes", "guidance", "time", "noise", "cameras", "background"),
    *("renderers", "systems", "formats"),
)


def add_options(name: str, parser: Parser) -> Command:
    """Declare the options of one of the three commands; returns what runs it."""
    if name == "list":
        parser.description = "What can be chosen, with a line on each."
        parser.add_argument("kind", choices=KINDS)
        return _list
    if name == "config":
        parser.description = "A preset with every setting written out, as YAML."
        parser.add_argument("preset", help="`dream3d list presets`")
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
        return _config
    parser.description = "What is installed, what each missing package would enable, and devices."
    return _doctor


def _list(arguments: argparse.Namespace) -> Outcome:
    from dream3d.catalogue import entries

    items = entries(arguments.kind)
    width = max((len(item["name"]) for item in items), default=0)
    lines = [f"{item['name']:{width}}  {item['summary']}" for item in items]
    text = "\n".join(lines) or f"no {arguments.kind} yet"
    return Outcome({"kind": arguments.kind, "items": items}, text)


def _config(arguments: argparse.Namespace) -> Outcome:
    from dream3d.config import config_to_yaml, load_config
    from dream3d.config.plain_yaml import read_mapping

    text = config_to_yaml(load_config(arguments.preset, arguments.overrides))
    return Outcome({"config": read_mapping(text, arguments.preset)}, text.rstrip("\n"))


def _doctor(arguments: argparse.Namespace) -> Outcome:
    from dream3d.doctor import examine, report

    findings = examine()
    return Outcome(findings, report(findings), 0 if findings["healthy"] else 2)
