"""What the README shows works."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import greenstalk
import pytest
from ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMAND = shlex.split(os.environ.get("BEANSPIKED_TEST_COMMAND", str(Path(sys.executable).with_name("beanspiked"))))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A durable server on a free port."""
    port = free_port()
    server = subprocess.Popen([*COMMAND, "-l", "127.0.0.1", "-p", str(port), "-b", str(tmp_path)])
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
        yield port
    finally:
        server.terminate()
        server.wait(10)


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
