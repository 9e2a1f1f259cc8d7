"""What the README shows works."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import greenstalk
import pytest
from launcher import serving
from suite import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A durable server on a free port."""
    with serving(shlex.split(COMMAND), "-b", str(tmp_path)) as server:
        yield server.address[1]


# What each of the Python examples prints, in their order.
PRINTED = [
    "hello\n",
    "True\nb'hello' 1 True\nnobody to greet\nTrue\n0 0 0 0 0 0\n",
    "hello world\n",
    "5000\n",
]


@pytest.mark.parametrize(("block", "printed"), list(zip(blocks("python"), PRINTED, strict=True)))
def test_the_python_examples_run(
    block: str,
    printed: str,
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    exec(compile(block.replace("11300", str(port)), "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_the_telnet_session_goes_as_shown(port: int) -> None:
    (shown,) = blocks("telnet")
    lines = shown.splitlines()
    # The example before it has put the first job.
    with greenstalk.Client(("127.0.0.1", port)) as client:
        client.delete(client.put(""))
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock, sock.makefile("rwb") as stream:
        while lines:
            typed = lines.pop(0)
            body = lines.pop(0) + "\r\n" if typed.startswith("put ") else ""
            stream.write(f"{typed}\r\n{body}".encode())
            stream.flush()
            while lines and not re.match(r"(put|reserve|stats-job|delete|quit)\b", lines[0]):
                assert stream.readline().decode().rstrip("\r\n") == lines.pop(0)
        assert stream.readline() == b""


def test_files_it_names_exist() -> None:
    root = Path(__file__).parent.parent
    for name in re.findall(r"\]\(([A-Za-z_/.]+)\)", README):
        assert (root / name).exists(), name
