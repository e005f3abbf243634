"""Serve until a signal: where the page's temporary files lie, who may come, and what is said at the start."""

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.errors import ConfigError
from dream3d.files import make_directory

if TYPE_CHECKING:
    from dream3d.ui.security import Access

NAME = "dream3d"
"""Of the one user there is where the page is opened to others and nobody is named."""


def admitted(listen: str | None, users: Path | None) -> "Access":
    """Who may come: this machine's own browser, the users of a file, or whoever is told a password made here.

    Args:
        listen: address for others to come in by; None is this machine only.
        users: file of names and passwords.

    Raises:
        ConfigError: bad users.
    """
    from dream3d.ui.security import Access, read_users

    if users is not None:
        return Access(read_users(users), Access.hosts if listen is None else frozenset())
    if listen is None:
        return Access()
    # Nobody who happens to reach the port may use this machine; who reads its terminal may.
    return Access({NAME: secrets.token_urlsafe(12)}, frozenset(), owner=NAME)


def serve(
    root: Path, listen: str | None, port: int, access: "Access", tell: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        root: where jobs live.
        listen: address for others to come in by; None is this machine only.
        port: of the page.
        access: who may use it, from `admitted`.
        tell: told the address when the page can be opened.

    Raises:
        ConfigError: the port is taken.
        OutputError: `root` cannot be written.
    """
    make_directory(root)
    with tempfile.TemporaryDirectory(prefix="dream3d-ui-") as cache:
        # Gradio copies what it is sent here; of its own, so that nobody else's files lie in it.
        os.environ["GRADIO_TEMP_DIR"] = cache
        from dream3d.ui.server import Address, Server

        server = Server(root, Address(listen or "127.0.0.1", port), access)
        watcher = threading.Thread(target=_announce, args=(server, tell), daemon=True)
        watcher.start()
        try:
            server.run()
        except SystemExit as error:
            raise ConfigError(
                f"the page could not be opened on port {port}; it is taken, choose another --port"
            ) from error


def _announce(server: object, tell: Callable[[str], None]) -> None:
    while not getattr(server, "started", False):
        time.sleep(0.05)
    tell(str(getattr(server, "url", "")))
