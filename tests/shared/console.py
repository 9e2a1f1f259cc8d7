"""The console of a running server in a real browser. `BEANSPIKED_TEST_PICTURES` names a folder that pictures are saved in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from beanspiked.client import requests
from beanspiked.client.address import Address
from beanspiked.client.blocking import Conn

if TYPE_CHECKING:
    from chromium import Page
    from launcher import ServerProcess


# Parentheses, slashes and dollars are all that a tube's name can attack with.
EVIL_TUBE = "a/b;$(alert)+_.-" + "long" * 40
EVIL_BODY = b"<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


class Console:
    """A server with some jobs, and its console in a page."""

    def __init__(self, server: ServerProcess, page: Page, port: int) -> None:
        self.page = page
        self.url = f"http://127.0.0.1:{port}/"
        assert isinstance(server.address, tuple)
        self.conn = Conn.connect(Address(host=server.address[0], port=server.address[1]))

    def put(self, tube: str, body: bytes, **how: int) -> int:
        self.conn.ask(requests.use(tube))
        return self.conn.ask(requests.put(body, **how))

    def open(self, hash: str = "") -> None:  # noqa: A002 - a location's own word
        self.page.open("about:blank")
        self.page.open(self.url + hash)
        self.page.wait("document.querySelector('.live.on') !== null")

    def picture(self, name: str) -> None:
        folder = os.environ.get("BEANSPIKED_TEST_PICTURES")
        if folder:
            self.page.picture(Path(folder, f"{name}.png"))

    def overflow(self) -> int:
        return int(self.page.tell("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def find(self, **fields: str) -> None:
        for label, value in fields.items():
            self.page.fill(label, value, ".filter")
        self.page.click("Count and list")

    def shows(self, text: str) -> None:
        """Wait until the page has a text anywhere."""
        self.page.wait(f"document.body.innerText.includes({text!r})")

    def says(self, text: str) -> None:
        """Wait until the page tells what was done."""
        self.page.wait(f"document.getElementById('said').textContent.includes({text!r})")
