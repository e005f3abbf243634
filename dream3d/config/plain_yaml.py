"""YAML as plain data: mappings, lists, text, numbers, true, false, null, and nothing that acts.

Differences from PyYAML's safe loader, each a trap for somebody who writes a configuration by hand: `1e-3` is a number,
`no` and `on` are text, `010` is text rather than eight, a key given twice is an error. There is no interpolation:
`${...}` is text like any other.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dream3d.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """The scalar rules of YAML 1.2's core schema, with underscores allowed in numbers."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleVariableOverride]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _load(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def read_mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping a YAML text holds; an empty text is an empty mapping.

    Args:
        text: the YAML text.
        source: what to call it in error messages.

    Raises:
        ConfigError: not YAML, or not a mapping.
    """
    try:
        data = _load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"{source} is not valid YAML: {detail}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(
            f"{source} holds {type(data).__name__}; a configuration is `key: value` lines"
        )
    return data


def read_mapping_file(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: no such file, not readable, not UTF-8, not YAML, not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text, so it is not a configuration") from error
    return read_mapping(text, str(path))


def parse_value(text: str, key: str) -> Any:
    """The value in `key=value` of the command line.

    A list in brackets or a mapping in braces is read as YAML; all else is one scalar, whatever characters it holds.

    Raises:
        ConfigError: a list or mapping that does not close, or is malformed.
    """
    stripped = text.strip()
    if stripped[:1] in ("[", "{", '"', "'"):
        try:
            return _load(stripped)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise ConfigError(
                f"{key}={text} is not valid: write lists as [1, 2], mappings as {{a: 1}}"
            ) from error
    loader = _Loader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, stripped, (True, False))
        return loader.construct_object(yaml.ScalarNode(tag, stripped))
    finally:
        loader.dispose()


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads back identically, indented lists included."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def to_text(data: dict[str, Any]) -> str:
    """YAML that `read_mapping` turns back into exactly `data`; keys keep their order, short lists stay on one line."""

    def dump(allow_unicode: bool) -> str:
        return yaml.dump(
            data,
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=allow_unicode,
            default_flow_style=None,
            width=100,
        )

    # Unescaped, a few characters (U+0085, U+2028, a lone surrogate, ...) count as line breaks or as nothing when read.
    readable = dump(True)
    try:
        exact = _load(readable) == data
    except yaml.YAMLError:
        exact = False
    return readable if exact else dump(False)
