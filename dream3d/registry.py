"""Names for the parts a configuration can choose: guidance, scenes, priors, samplers.

A registry maps a name to a class and does nothing else. Dropping a file that registers itself into the registry's
package is enough to make it available, listed and tested.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from dream3d.errors import ConfigError

T = TypeVar("T")
Entry = TypeVar("Entry", bound=type)


def suggestion(name: str, known: list[str]) -> str:
    """' Did you mean "x"?' for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""


def _place(entry: type) -> str:
    """Where a class is written: module and name."""
    return f"{entry.__module__}.{entry.__qualname__}"


class Registry(Generic[T]):
    """Classes by name, discovered by importing every module of one package (or the one module named)."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._entries: dict[str, type[T]] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Class decorator that files the class under `name` and stores the name on it as `registered_name`."""

        def add(entry: Entry) -> Entry:
            taken = self._entries.get(name)
            # The same class again is a module that was read anew; a copy of a file is another class.
            if taken is not None and _place(taken) != _place(entry):
                raise ValueError(
                    f"{self.kind} name '{name}' is already used by {_place(taken)}; register "
                    f"{_place(entry)} under another name"
                )
            self._entries[name] = entry  # pyright: ignore[reportArgumentType]  # Entry is a subclass of T
            entry.registered_name = name
            return entry

        return add

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self.package}.{module.name}")
        self._discovered = True

    def names(self) -> list[str]:
        """All registered names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __getitem__(self, name: str) -> type[T]:
        """The class called `name`.

        Raises:
            ConfigError: no such name; the message lists the known ones and the closest.
        """
        self._discover()
        if name not in self._entries:
            known = self.names()
            raise ConfigError(
                f"{self.kind} is '{name}'; choose one of {', '.join(known)}.{suggestion(str(name), known)}"
            )
        return self._entries[name]
