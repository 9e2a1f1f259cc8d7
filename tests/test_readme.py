"""What the documents show works, and their links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import greenstalk
import pytest
from either import COMMAND, running
from launcher import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGES = {path: path.read_text() for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]}


def blocks(language: str) -> list[str]:
    """List the blocks of a language in all pages, the README's first."""
    pages = sorted(PAGES, key=lambda path: path.name != "README.md")
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [block for path in pages for block in pattern.findall(PAGES[path])]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A durable server on a free port."""
    with serving(COMMAND, "-b", str(tmp_path)) as server:
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
    exec(compile(block.replace("11300", str(port)), "documents", "exec"), {})
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_names_of_ours_that_a_page_shows_can_be_imported_as_shown(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    imports = re.findall(r"`(from beanspiked[\w.]* import \w+)`", text)
    names = re.findall(r"(?<![\w./])beanspiked(?:\.\w+)+(?=\()", text)
    code = "\n".join(["import beanspiked", *names, *imports])
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=30, check=True)


def unaged(text: str) -> str:
    """As it were if jobs did not become older, and without the spaces that this moves."""
    return re.sub(r" +", " ", re.sub(r"\b[0-9]+( ?s\b)", r"0\1", text.strip()))


def test_the_commands_print_what_is_shown(tmp_path: Path) -> None:
    name = shlex.join(COMMAND)
    with running("beanspiked", "-b", str(tmp_path)) as server:
        for block in blocks("console"):
            for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, printed = shown.partition("\n")
                done = subprocess.run(
                    ["bash", "-c", f'beanspiked() {{ {name} "$@"; }}\n{line} 2>&1'],
                    env={**os.environ, "BEANSPIKED_ADDR": server.address},
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                assert unaged(done.stdout) == unaged(printed), line


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if link.startswith(("https:", "http:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_readme_fits_into_a_head() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 8192
