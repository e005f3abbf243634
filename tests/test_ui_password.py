"""Whom `dream3d ui` lets in, by what its command line says."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the web page is an extra: pip install 'dream3d[ui]'")

from ui_support import ask, basic, serving

from dream3d.cli.main import main
from dream3d.ui import serve
from dream3d.ui.security import Access


def test_others_without_a_file_of_users_need_a_password_made_at_every_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def served(_root: Path, _listen: str, _port: int, access: Access, tell: Any) -> None:
        tell("http://here/")
        ((name, password),) = access.users.items()
        assert not access.hosts and len(password) >= 16 and access.owner == name
        passwords.append(password)
        out, err = capsys.readouterr()
        assert not out and f"Name: {name}  Password: {password}" in err

    passwords: list[str] = []
    monkeypatch.setattr(serve, "serve", served)
    for _ in range(2):
        assert main(["ui", "--root", str(tmp_path), "--listen", "0.0.0.0"]) == 0
    assert passwords[0] != passwords[1]


def test_passwords_of_a_file_are_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "users"
    path.write_text("ada:correct horse\n")
    path.chmod(0o600)
    seen: list[Access] = []

    def served(_root: Path, _listen: str, _port: int, access: Access, tell: Any) -> None:
        seen.append(access)
        tell("http://here/")

    monkeypatch.setattr(serve, "serve", served)
    assert main(["ui", "--listen", "0.0.0.0", "--users", str(path)]) == 0
    # Without --listen only this machine's names are taken, with users as without.
    assert main(["ui", "--users", str(path)]) == 0
    assert main(["ui"]) == 0
    assert "horse" not in "".join(capsys.readouterr())
    assert [dict(access.users) for access in seen] == [{"ada": "correct horse"}] * 2 + [{}]
    assert [bool(access.hosts) for access in seen] == [False, True, True]
    assert not any(access.owner for access in seen)


def test_whoever_was_told_the_password_is_the_owner(tmp_path: Path) -> None:
    """One user among others sees their own jobs; the owner sees all, and strangers see nothing."""
    users = {"ada": "correct horse", "me": "battery staple"}
    body = {"prompt": "a mug", "preset": "gaussian"}
    with serving(tmp_path, Access(users, frozenset(), owner="me"), start_jobs=False) as server:
        for name in users:
            headers = basic(name, users[name])
            assert ask(server, "POST", "/api/jobs", body, headers).status == 201
        seen = {
            name: len(
                ask(server, "GET", "/api/jobs", headers=basic(name, users[name])).json["jobs"]
            )
            for name in users
        }
        assert seen == {"ada": 1, "me": 2}
        assert ask(server, "GET", "/api/jobs").status == 401
