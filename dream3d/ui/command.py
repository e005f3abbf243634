"""The command line that repeats a job, quoted for a shell."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from dream3d.jobs import JobRequest


def shell_command(request: JobRequest) -> str:
    """`dream3d generate ...` with the prompt after `--`, so that whatever it holds is text."""
    words = ["dream3d", "generate"]
    if request.preset != "default":
        words += ["--preset", request.preset]
    if request.seed is not None:
        words += ["--seed", str(request.seed)]
    if request.negative_prompt:
        # One word with `=`: a text that begins with a dash is no option then.
        words.append(f"--negative={request.negative_prompt}")
    words += settings_texts(request.overrides)
    return shlex.join([*words, "--", request.prompt])


def settings_texts(overrides: Mapping[str, Any] | tuple[str, ...]) -> list[str]:
    """Overrides as `key=value`; values as JSON, which the command line reads as YAML."""
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_value(value)}" for key, value in overrides.items()]


def _value(value: Any) -> str:
    plain = isinstance(value, str) and value.replace("-", "").replace("_", "").isalnum()
    return str(value) if plain else json.dumps(value)
