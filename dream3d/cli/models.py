"""`dream3d models list` and `dream3d models check`: which text-to-image models there are, and which can be had."""

import argparse
from dataclasses import asdict

from dream3d.cli.options import Command, Outcome, Parser, UsageError, say

USES = {
    "pipeline": "prior=diffusers prior.model=ID conditioning=text",
    "controlnet": "prior=stable-diffusion (or sdxl) prior.controlnet=ID conditioning=text",
    "ip-adapter": "prior=stable-diffusion (or sdxl) prior.ip_adapter=ID prior.image_prompt=FILE conditioning=text",
}
"""How a model of each kind is asked for."""
OWN_USES = {
    "MVDreamPipeline": "prior=mvdream prior.model=ID conditioning=multiview views=4",
    "ImageDreamPipeline": "--image FILE prior=imagedream prior.model=ID conditioning=multiview views=4",
    "Zero123Pipeline": "--image FILE prior=zero123 (or stable-zero123) prior.model=ID conditioning=camera",
}
"""Pipelines with a prior of their own."""


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    if name == "models list":
        parser.description = "Models by role, the preferred first, as documentation describes them."
        return list_models
    parser.description = "Ask the hub which models can be had. Nothing is downloaded."
    parser.add_argument("names", nargs="*", metavar="ID", help="ids or roles (default: all listed)")
    return check_models


def list_models(arguments: argparse.Namespace) -> Outcome:
    """The table of `models.toml`."""
    from dream3d.priors.model_list import model_list
    from dream3d.priors.pipelines.table import ROWS

    advice = {name: row.advice for name, row in ROWS.items()}
    rows = [{**asdict(entry), "advice": advice.get(entry.pipeline, "")} for entry in model_list()]
    lines = []
    for use in (*USES.values(), *OWN_USES.values()):
        lines += [
            f"{', '.join(entry.roles):24} {entry.address:56} {entry.memory:5.1f} GB  {entry.licence}"
            + ("  (gated)" if entry.gated else "")
            for entry in model_list()
            if OWN_USES.get(entry.pipeline, USES[entry.kind]) == use
        ]
        lines.append(f"Use one with: dream3d generate PROMPT {use}\n")
    return Outcome({"models": rows}, "\n".join(lines).strip())


def check_models(arguments: argparse.Namespace) -> Outcome:
    """Ask the hub about each; exit status 2 when none of them can be had."""
    from dream3d.priors.model_list import check_model, find_model, model_list

    names = []
    for name in [*arguments.names, *arguments.literal]:
        entry = find_model(name)
        if entry is None and name.count("/") != 1:
            raise UsageError(
                f"'{name}' is neither a role (`dream3d models list`) nor an id, owner/name"
            )
        names.append(entry.id if entry is not None and name in entry.roles else name)
    names = names or list(dict.fromkeys(entry.id for entry in model_list()))
    say(f"asking the hub about {len(names)} models")
    states = []
    for name in names:
        state = check_model(name)
        states.append(state)
        if state.access == "no network":
            # Without a network every further question would only wait for its own time-out.
            states += [type(state)(n, "no network", fix=state.fix) for n in names[len(states) :]]
            break
    lines = [
        f"{state.access:10} {state.id}" + (f"\n           {state.fix}" if state.fix else "")
        for state in states
    ]
    status = 0 if any(state.access == "open" for state in states) else 2
    return Outcome({"models": [asdict(state) for state in states]}, "\n".join(lines), status)
