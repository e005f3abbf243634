"""What every request must be before anything answers it, and what every answer forbids the browser.

One plain ASGI layer around the whole server, the page's framework included:

- The address the browser used must be this server's (another site's name that was pointed at 127.0.0.1 is refused).
- A request that changes something must come from the page itself, not from another site open in the same browser.
- Bodies have a size limit, counted while they arrive, whatever their header claims.
- With users, every request carries a name and a password, compared in constant time.
- Answers may load nothing from elsewhere, be framed by nobody else and be guessed to be no other type.
"""

import asyncio
import base64
import hmac
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dream3d.errors import ConfigError

MEGABYTE = 2**20
MAX_UPLOAD = 50 * MEGABYTE
MAX_BODY = MEGABYTE
UPLOADS = "/gradio_api/upload"
OWN_UPLOADS = "/api/uploads"

# The framework's own scripts are inline and compile templates; nothing of it may come from another machine.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
SECONDS_AFTER_A_WRONG_PASSWORD = 0.5


@dataclass(frozen=True)
class Access:
    """Who may use the server.

    Attributes:
        users: passwords by name; empty lets everybody in, which is meant for one machine's own browser.
        hosts: names the browser may use for this server; empty allows any.
        owner: of the users the one who may do whatever this machine's own browser may: sees every job, names files.
    """

    users: Mapping[str, str] = field(default_factory=dict)
    hosts: frozenset[str] = _LOCAL
    owner: str | None = None


def read_users(path: Path) -> dict[str, str]:
    """Names and passwords from a file of `name:password` lines that only its owner can read.

    Raises:
        ConfigError: unreadable, readable by others, or not of that form.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file of users, {path}, cannot be read: {error}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} holds passwords that others can read; run: chmod 600 {path}")
    users = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not (colon and name.strip() and len(password) >= 8):
            raise ConfigError(
                f"{path}, line {number}: write name:password with at least eight characters of password"
            )
        users[name.strip()] = password
    if not users:
        raise ConfigError(f"{path} names no user; write name:password, one a line")
    return users


class Guard:
    """The layer.

    Args:
        app: the ASGI application to protect.
        access: who may use it.
    """

    def __init__(self, app: Any, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse, or pass on with a counted body and the headers above."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing here speaks websockets; whoever opens one is not the page.
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        user = self._user(headers)
        if refusal is None and user is None:
            await asyncio.sleep(SECONDS_AFTER_A_WRONG_PASSWORD if "authorization" in headers else 0)
            await _answer(send, 401, "who are you?", {"www-authenticate": 'Basic realm="dream3d"'})
            return
        limit = MAX_UPLOAD if scope["path"] in (UPLOADS, OWN_UPLOADS) else MAX_BODY
        if refusal is None and _claimed(headers) > limit:
            refusal = 413, f"at most {limit // MEGABYTE} MB are taken"
        if refusal is not None:
            await _answer(send, *refusal)
            return
        scope.setdefault("state", {})["user"] = user
        await _Counted(self.app, limit)(scope, receive, send)

    def _refusal(self, method: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if self.access.hosts and _name(f"//{host}") not in self.access.hosts:
            return 421, "this server does not go by that name; open it by the address it printed"
        if method not in ("GET", "HEAD"):
            origin = headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc != host
            if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
                return 403, "another site may not change anything here"
        return None

    def _user(self, headers: Mapping[str, str]) -> str | None:
        """The user's name; "" where there are none and for the owner; None for a stranger."""
        if not self.access.users:
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        try:
            text = base64.b64decode(token, validate=True).decode("utf-8")
        except (ValueError, UnicodeDecodeError):
            return None
        name, _, password = text.partition(":")
        # An unknown name takes as long as a known one.
        expected = self.access.users.get(name, "\0")
        same = hmac.compare_digest(password.encode(), expected.encode())
        if scheme.lower() != "basic" or not same:
            return None
        return "" if name == self.access.owner else name


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _claimed(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() and len(text) < 20 else 0


async def _answer(
    send: Any, status: int, text: str, extra: Mapping[str, str] | None = None
) -> None:
    headers = {**HEADERS, "content-type": "text/plain; charset=utf-8", **(extra or {})}
    raw = [(k.encode(), v.encode()) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": text.encode()})


class _TooLarge(Exception):
    """The body went past its limit."""


class _Counted:
    """One request whose body is counted as it arrives and whose answer carries the headers."""

    def __init__(self, app: Any, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application with the counting."""
        taken = 0
        begun = refused = False

        async def counted() -> Any:
            nonlocal taken, refused
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.limit:
                refused = True
                raise _TooLarge
            return message

        async def guarded(message: Any) -> None:
            nonlocal begun
            if refused and not begun:
                # Whatever the application makes of the error, this is what happened.
                begun = True
                await _answer(send, 413, f"at most {self.limit // MEGABYTE} MB are taken")
            if refused:
                return
            if message["type"] == "http.response.start":
                begun = True
                present = {name for name, _ in message.get("headers", [])}
                own = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
                added = [(k, v) for k, v in own if k not in present]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        try:
            await self.app(scope, counted, guarded)
        except _TooLarge:
            await guarded({"type": "http.response.start"})
