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
        yield stack.enter_context(serving(shlex.split(COMMAND), "--admin", str(port), "-z", "200000")), page, port


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
    console.page.wait("document.body.innerText.includes('emails')")
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
    console.page.wait("document.body.innerText.includes('buried: card refused')")
    assert '"order": 7' in console.page.text(), "JSON is shown as such"
    console.picture("tube")
    console.page.click("Kick", "document.querySelector('.jobs')")
    console.page.wait(f"document.body.innerText.includes('Next ready: {job_id}')")


def test_a_job_is_put_and_deleted(console: Console) -> None:
    console.put("orders", b"first")
    console.open("#/tube/orders")
    console.page.click("Put")
    console.page.fill("Body", "from the console")
    console.page.fill("Priority", "0")
    console.page.click("Put", "dialog")
    console.page.wait("document.body.innerText.includes('from the console')")
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
    console.page.wait("document.getElementById('said').textContent.includes('3 deleted')")
    # The tube went with its last job, and the page says so.
    said(console, "there is no tube bin")
    console.open()
    console.page.complaints.clear()


def find(console: Console, **fields: str) -> None:
    for label, value in fields.items():
        console.page.fill(label, value, ".filter")
    console.page.click("Count and list")


def test_jobs_are_found_counted_moved_and_deleted(console: Console) -> None:
    for body in (b"red apple", b"red pear", EVIL_BODY):
        console.put("fruit", body)
    console.open("#/tube/fruit")
    find(console, Body="red")
    console.page.wait("document.body.innerText.includes('2 match')")
    assert console.page.tell("[...document.querySelectorAll('td .body')].map((one) => one.textContent).join()") == (
        "red apple,red pear"
    )
    console.picture("find")
    console.page.click("Move all")
    console.page.fill("To the tube", "basket")
    console.page.click("Move them", "dialog")
    console.page.wait("document.getElementById('said').textContent.includes('2 moved to basket')")
    find(console, Body="img")
    console.page.wait("document.body.innerText.includes('1 match')")
    assert console.page.tell("document.querySelector('td .body').textContent") == EVIL_BODY.decode()
    console.page.click("Delete all")
    console.page.fill("Type", "fruit")
    console.page.click("Delete them", "dialog")
    console.page.wait("document.getElementById('said').textContent.includes('1 deleted')")
    basket = console.conn.ask(requests.stats_tube("basket"))
    assert basket is not None
    assert basket["current-jobs-ready"] == 2


def said(console: Console, text: str) -> None:
    console.page.wait(f"document.getElementById('said').textContent.includes({text!r})")


def test_a_selection_is_buried_and_all_that_match_are_duplicated(console: Console) -> None:
    for body in (b"plum", b"pear", b"peach"):
        console.put("mixed", body, priority=9)
    console.open("#/tube/mixed")
    find(console)
    console.page.wait("document.body.innerText.includes('3 match')")
    console.page.tell("[...document.querySelectorAll('td input')].slice(0, 2).forEach((one) => one.click())")
    console.page.wait("document.body.innerText.includes('2 of 3 selected')")
    console.picture("selection")
    console.page.click("Bury", "document.querySelector('div.bar[role=status]')")
    console.page.fill("Reason", "unripe")
    console.page.click("Bury them", "dialog")
    said(console, "2 buried")
    console.page.wait("document.body.innerText.includes('1 match')")
    console.page.click("Duplicate all")
    console.page.click("Duplicate them", "dialog")
    said(console, "1 duplicated")
    console.page.wait("document.body.innerText.includes('2 match')")
    console.page.click("Priority all")
    console.page.fill("Priority (0", "5", "dialog")
    console.page.click("Change it", "dialog")
    said(console, "2 have the priority 5")
    assert console.conn.ask(requests.stats_tube("mixed"))["current-jobs-buried"] == 2


def test_a_held_job_is_shown_and_released(console: Console) -> None:
    job = console.put("held", b"x")
    console.conn.ask(requests.watch("held"))
    assert console.conn.ask(requests.reserve()).id == job
    console.open("#/tube/held")
    console.page.wait(f"document.body.innerText.includes('Next reserved: {job}')")
    console.page.click("Release")
    console.page.wait(f"document.body.innerText.includes('Next ready: {job}')")
    console.page.click("Priority")
    console.page.fill("Priority (0", "77", "dialog")
    console.page.click("Change", "dialog")
    said(console, f"job {job} has the priority 77")
    console.page.click("Duplicate")
    said(console, f"is a copy of job {job}")


def test_a_job_is_delayed_and_moved(console: Console) -> None:
    job = console.put("early", b"x")
    console.open("#/tube/early")
    console.page.click("Delay", "document.querySelector('.jobs')")
    console.page.fill("Ready in", "3000")
    console.page.click("Change", "dialog")
    said(console, f"job {job} is ready in 3000 s")
    console.page.wait(f"document.body.innerText.includes('Next delayed: {job}')")
    # Another delay of a delayed job is shown at once.
    console.page.click("Delay", "document.querySelector('.jobs')")
    console.page.fill("Ready in", "600")
    console.page.click("Change", "dialog")
    console.page.wait("document.querySelector('.jobs').innerText.includes('10 min')")
    console.page.click("Move", "document.querySelector('.jobs')")
    console.page.fill("To the tube", "elsewhere")
    console.page.click("Move", "dialog")
    said(console, f"job {job} moved to elsewhere")
    assert console.conn.ask(requests.stats_tube("elsewhere"))["current-jobs-delayed"] == 1


def test_a_selection_of_held_jobs_is_released_and_all_that_match_are_delayed(console: Console) -> None:
    for _ in range(3):
        console.put("taken", b"x")
    console.conn.ask(requests.watch("taken"))
    for _ in range(3):
        console.conn.ask(requests.reserve())
    console.open("#/tube/taken")
    find(console, State="reserved")
    console.page.wait("document.body.innerText.includes('3 match')")
    console.page.tell("[...document.querySelectorAll('td input')].slice(0, 2).forEach((one) => one.click())")
    console.page.click("Release", "document.querySelector('div.bar[role=status]')")
    console.page.click("Release them", "dialog")
    said(console, "2 released")
    find(console, State="ready")
    console.page.wait("document.body.innerText.includes('2 match')")
    console.page.click("Delay all")
    console.page.fill("Ready in", "500")
    console.page.click("Change it", "dialog")
    said(console, "2 are ready in 500 s")
    assert console.conn.ask(requests.stats_tube("taken"))["current-jobs-delayed"] == 2


def test_a_selection_is_kicked_moved_duplicated_and_deleted(console: Console) -> None:
    for body in (b"a", b"b", b"c"):
        console.put("picked", body, delay=900)

    def pick(state: str, count: int, what: str, **fields: str) -> None:
        # A new page, so that no row of an earlier list is taken for one of this.
        console.open("#/tube/picked")
        find(console, State=state)
        console.page.wait(f"document.querySelectorAll('td input').length >= {count}")
        console.page.tell(f"[...document.querySelectorAll('td input')].slice(0, {count}).forEach((one) => one.click())")
        console.page.wait(f"document.body.innerText.includes('{count} of ')")
        console.page.click(what, "document.querySelector('div.bar[role=status]')")
        for label, value in fields.items():
            console.page.fill(label, value)
        console.page.click(f"{what} them", "dialog")

    pick("delayed", 2, "Kick")
    said(console, "2 kicked")
    pick("ready", 1, "Move", To="away")
    said(console, "1 moved to away")
    pick("ready", 1, "Duplicate")
    said(console, "1 duplicated")
    pick("delayed", 1, "Delete", Type="picked")
    said(console, "1 deleted")
    told = console.conn.ask(requests.stats_tube("picked"))
    assert (told["current-jobs-ready"], told["current-jobs-delayed"]) == (2, 0)


def test_a_pause_counts_down(console: Console) -> None:
    console.put("slow", b"x")
    console.open("#/tube/slow")
    console.page.click("Pause")
    console.page.fill("For how many", "3700")
    console.page.click("Pause", "dialog")
    console.page.wait("document.body.innerText.includes('1:01:3')")
    left = "/[0-9]:[0-9:]+ left/.exec(document.body.innerText)[0]"
    before = console.page.tell(left)
    console.page.wait(f"{left} < {before!r}")
    console.page.tell("location.hash = '#/'")
    console.page.wait("document.body.innerText.includes('paused, 1:01:')")
    console.page.tell("location.hash = '#/tube/slow'")
    console.page.click("Pause")
    console.page.fill("For how many", "0")
    console.page.click("Pause", "dialog")
    said(console, "not paused any more")


def test_many_lines_are_put(console: Console) -> None:
    console.put("lines", b"x")
    console.open("#/tube/lines")
    console.page.click("Put")
    console.page.fill("Body", "one\n\ntwo\nthree")
    console.page.fill("Put it as", "a job for each line")
    console.picture("put")
    console.page.click("Put", "dialog")
    said(console, "3 jobs are put")
    assert console.conn.ask(requests.stats_tube("lines"))["current-jobs-ready"] == 4


def test_a_job_is_put_from_a_template_and_like_a_former_one(console: Console) -> None:
    former = console.put("again", "h\u00e9".encode() * 50_000, priority=7, ttr=9)
    console.open("#/tube/again")
    # Of a large body the page shows only the beginning.
    console.page.click("Put again")
    console.page.wait("dialog.open")
    console.page.fill("Keep it", "greeting")
    console.page.click("Put", "dialog")
    said(console, f"job {former + 1} is put")
    console.page.click("Put")
    console.page.fill("Template", "greeting")
    console.page.click("Put", "dialog")
    said(console, f"job {former + 2} is put")
    console.conn.ask(requests.watch("again"))
    for _ in range(3):
        job = console.conn.ask(requests.reserve())
        told = console.conn.ask(requests.stats_job(job.id))
        assert (job.body, told["pri"], told["ttr"]) == ("h\u00e9".encode() * 50_000, 7, 9)
        console.conn.ask(requests.delete(job.id))
    console.put("again", b"second", delay=900)
    find(console, State="delayed")
    console.page.wait("document.body.innerText.includes('1 match')")
    console.page.tell("document.querySelector('td input').click()")
    console.page.click("Put again", "document.querySelector('div.bar[role=status]')")
    console.page.click("Put", "dialog")
    said(console, "is put")
    assert console.conn.ask(requests.reserve()).body == b"second"
    console.put("again", b"\xff")
    console.page.wait("document.querySelector('.jobs').innerText.includes('ff')")
    console.page.click("Put again")
    said(console, "is not text")


def test_a_template_is_forgotten(console: Console) -> None:
    console.put("again", b"x")
    console.open("#/tube/again")
    for body in ("hello", ""):
        console.page.click("Put")
        console.page.fill("Body", body)
        console.page.fill("Keep it", "short")
        known = console.page.tell("[...dialog.querySelectorAll('option')].map((one) => one.textContent)")
        assert ("short" in known) is (not body)
        console.page.click("Put", "dialog")
        said(console, "is forgotten" if not body else "is put")


def test_a_connection_is_closed(console: Console) -> None:
    console.conn.ask(requests.watch("mine"))
    console.open("#/connections")
    console.page.wait("document.body.innerText.includes('mine')")
    console.page.click("Close", "document.querySelector('tbody')")
    console.page.click("Close", "dialog")
    console.page.wait("document.getElementById('said').textContent.includes('closed')")


def test_what_clients_send_is_never_executed(console: Console) -> None:
    console.put(EVIL_TUBE, EVIL_BODY)
    console.open()
    console.page.wait(f"document.body.innerText.includes('{EVIL_TUBE}')")
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
    console.page.wait("document.body.innerText.includes('came-later')")
