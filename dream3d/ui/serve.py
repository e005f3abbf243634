"""Serve until a signal: where the page's temporary files lie, who may come, and what is said at the start."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from dream3d.errors import ConfigError
from dream3d.files import make_directory


def serve(
    root: Path, listen: str | None, port: int, users: Path | None, tell: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        root: where jobs live.
        listen: address for others to come in by; None is this machine only.
        port: of the page.
        users: file of names and passwords.
        tell: told the address when the page can be opened.

    Raises:
        ConfigError: bad users, or the port is taken.
        OutputError: `root` cannot be written.
    """
    from dream3d.ui.security import Access, read_users

    access = Access()
    if users is not None:
        hosts = access.hosts if listen is None else frozenset()
        access = Access(read_users(users), hosts)
    elif listen is not None:
        raise ConfigError("to let others in, name the users")
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
