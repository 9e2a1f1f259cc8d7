"""The console in a real browser, with its network off. `BEANSPIKED_TEST_PICTURES` names a folder that pictures are saved in."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chromium import Page, browsing
from launcher import ServerProcess, free_port, serving
from suite import COMMAND

from beanspiked.client import requests
from beanspiked.client.address import Address
from beanspiked.client.blocking import Conn

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.xdist_group("chromium")]

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

    def shows(self, text: str) -> None:
        """Wait until the page has a text anywhere."""
        self.page.wait(f"document.body.innerText.includes({text!r})")

    def says(self, text: str) -> None:
        """Wait until the page tells what was done."""
        self.page.wait(f"document.getElementById('said').textContent.includes({text!r})")

    def picture(self, name: str) -> None:
        folder = os.environ.get("BEANSPIKED_TEST_PICTURES")
        if folder:
            self.page.picture(Path(folder, f"{name}.png"))

    def overflow(self) -> int:
        return int(self.page.tell("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[ServerProcess, Page, int]]:
    port = free_port()
    with ExitStack() as stack:
        page = stack.enter_context(browsing())
        yield stack.enter_context(serving(shlex.split(COMMAND), "--admin", str(port))), page, port


@pytest.fixture
def console(running: tuple[ServerProcess, Page, int]) -> Iterator[Console]:
    server, page, port = running
    page.show(1200, 900)
    page.asked.clear()
    page.complaints.clear()
    made = Console(server, page, port)
    yield made
    made.conn.close()
    assert page.complaints == []


def test_the_overview_needs_nothing_from_elsewhere(console: Console) -> None:
    console.put("emails", b"x")
    console.open()
    console.shows("emails")
    asked = [url for url in console.page.asked if url != "about:blank"]
    assert len(asked) > 4
    assert all(url.startswith(console.url) for url in asked)
    console.picture("overview")


def test_a_newcomer_finds_a_buried_job_reads_why_and_kicks_it(console: Console) -> None:
    job_id = console.put("payments", b'{"order": 7, "items": ["a", "b"]}')
    console.open()
    console.page.tell("location.hash = '#/tube/payments'")
    console.page.click("Bury")
    console.page.fill("Reason", "card refused")
    console.page.click("Bury", "dialog")
    console.shows("buried: card refused")
    assert '"order": 7' in console.page.text(), "JSON is shown as such"
    console.picture("tube")
    console.page.click("Kick", "document.querySelector('.jobs')")
    console.shows(f"Next ready: {job_id}")


def test_a_job_is_put_and_deleted(console: Console) -> None:
    console.put("orders", b"first")
    console.open("#/tube/orders")
    console.page.click("Put")
    console.page.fill("Body", "from the console")
    console.page.fill("Priority", "0")
    console.page.click("Put", "dialog")
    console.shows("from the console")
    console.page.click("Delete", "document.querySelector('.jobs')")
    console.page.click("Delete", "dialog")
    console.page.wait("!document.body.innerText.includes('from the console')")
    stats = console.conn.ask(requests.stats_tube("orders"))
    assert stats is not None
    assert stats["current-jobs-ready"] == 1


def test_a_tube_is_cleared_by_who_types_its_name(console: Console) -> None:
    for _ in range(3):
        console.put("bin", b"x")
    console.conn.ask(requests.use("default"))
    console.open("#/tube/bin")
    console.page.click("Clear")
    console.page.fill("All jobs that are", "ready")
    console.page.fill("Type", "bi")
    assert console.page.tell("document.querySelector('dialog [type=submit]').disabled")
    console.page.fill("Type", "bin")
    console.page.click("Delete them all", "dialog")
    console.says("3 deleted")
    # The tube went with its last job, and the page says so.
    console.page.complaints.clear()
    console.open()


def find(console: Console, **fields: str) -> None:
    for label, value in fields.items():
        console.page.fill(label, value, ".filter")
    console.page.click("Count and list")


def test_jobs_are_found_counted_moved_and_deleted(console: Console) -> None:
    for body in (b"red apple", b"red pear", EVIL_BODY):
        console.put("fruit", body)
    console.open("#/tube/fruit")
    find(console, Body="red")
    console.shows("2 match")
    assert console.page.tell("[...document.querySelectorAll('td .body')].map((one) => one.textContent).join()") == (
        "red apple,red pear"
    )
    console.picture("find")
    console.page.click("Move all")
    console.page.fill("To the tube", "basket")
    console.page.click("Move them", "dialog")
    console.says("2 moved to basket")
    find(console, Body="img")
    console.shows("1 match")
    assert console.page.tell("document.querySelector('td .body').textContent") == EVIL_BODY.decode()
    console.page.click("Delete all")
    console.page.fill("Type", "fruit")
    console.page.click("Delete them", "dialog")
    console.says("1 deleted")
    basket = console.conn.ask(requests.stats_tube("basket"))
    assert basket is not None
    assert basket["current-jobs-ready"] == 2


def test_a_selection_is_buried_and_all_that_match_are_duplicated(console: Console) -> None:
    for body in (b"plum", b"pear", b"peach"):
        console.put("mixed", body, priority=9)
    console.open("#/tube/mixed")
    find(console)
    console.shows("3 match")
    console.page.tell("[...document.querySelectorAll('td input')].slice(0, 2).forEach((one) => one.click())")
    console.shows("2 of 3 selected")
    console.picture("selection")
    console.page.click("Bury", "document.querySelector('div.bar[role=status]')")
    console.page.fill("Reason", "unripe")
    console.page.click("Bury them", "dialog")
    console.says("2 buried")
    console.shows("1 match")
    console.page.click("Duplicate all")
    console.page.click("Duplicate them", "dialog")
    console.says("1 duplicated")
    console.shows("2 match")
    console.page.click("Priority all")
    console.page.fill("Priority (0", "5", "dialog")
    console.page.click("Change it", "dialog")
    console.says("2 have the priority 5")
    assert console.conn.ask(requests.stats_tube("mixed"))["current-jobs-buried"] == 2


def test_a_held_job_is_shown_and_released(console: Console) -> None:
    job = console.put("held", b"x")
    console.conn.ask(requests.watch("held"))
    assert console.conn.ask(requests.reserve()).id == job
    console.open("#/tube/held")
    console.shows(f"Next reserved: {job}")
    console.page.click("Release")
    console.shows(f"Next ready: {job}")
    console.page.click("Priority")
    console.page.fill("Priority (0", "77", "dialog")
    console.page.click("Change", "dialog")
    console.says(f"job {job} has the priority 77")
    console.page.click("Duplicate")
    console.says(f"is a copy of job {job}")


def test_a_connection_is_closed(console: Console) -> None:
    console.conn.ask(requests.watch("mine"))
    console.open("#/connections")
    console.shows("mine")
    console.page.click("Close", "document.querySelector('tbody')")
    console.page.click("Close", "dialog")
    console.says("closed")


def test_what_clients_send_is_never_executed(console: Console) -> None:
    console.put(EVIL_TUBE, EVIL_BODY)
    console.open()
    console.shows(EVIL_TUBE)
    console.page.tell("document.querySelector('a[href*=\"alert\"]').click()")
    console.page.wait("document.querySelector('pre') !== null")
    assert console.page.tell("document.querySelector('pre').textContent") == EVIL_BODY.decode()
    assert console.page.tell("document.querySelectorAll('main img, main script').length") == 0
    for face in ("Hex", "Text"):
        console.page.click(face)
    assert console.page.tell("document.title") != "owned"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nobody_scrolls_sideways_on_a_phone(console: Console, dark: bool) -> None:
    console.put(EVIL_TUBE, b"x" * 3000)
    console.page.show(390, 844, dark=dark)
    for place, name in (
        ("", "overview"),
        (f"#/tube/{EVIL_TUBE.replace('/', '%2F')}", "tube"),
        ("#/connections", "connections"),
    ):
        console.open(place)
        console.page.wait("document.querySelectorAll('tbody tr, main pre').length > 0")
        if name == "tube":
            find(console, Body="x")
            console.page.wait("document.querySelectorAll('td .body').length > 0")
        assert console.overflow() <= 0, place
        console.picture(f"phone-{name}-{'dark' if dark else 'light'}")


def test_keys_lead_everywhere(console: Console) -> None:
    console.put("emails", b"x")
    console.open()
    console.page.wait("document.querySelectorAll('tbody a').length > 0")
    console.page.press("j")
    assert console.page.tell("document.activeElement.closest('tbody') !== null")
    console.page.press("c")
    console.page.wait("location.hash === '#/connections'")
    console.page.press("t")
    console.page.wait("document.getElementById('search') !== null")
    console.page.press("/")
    assert console.page.tell("document.activeElement.id") == "search"


def test_pages_are_live(console: Console) -> None:
    console.open()
    console.put("came-later", b"x")
    console.shows("came-later")
