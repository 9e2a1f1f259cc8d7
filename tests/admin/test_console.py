"""The console in a real browser, with its network off."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
from console import EVIL_BODY, EVIL_TUBE

from beanspiked.admin.api import MAX_LISTENERS
from beanspiked.client import requests

if TYPE_CHECKING:
    from console import Console

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("chromium")]


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


def test_the_facts_of_a_job_are_live_and_its_body_stays(console: Console) -> None:
    console.put("worked", b"x", ttr=100)
    console.conn.ask(requests.watch("worked"))
    job = console.conn.ask(requests.reserve())
    console.open("#/tube/worked")
    console.page.wait("document.querySelector('pre') !== null")
    console.page.tell("window.body = document.querySelector('pre')")
    left = r"Number(document.querySelector('.jobs').innerText.match(/time left\s+(\d+) s/)[1])"
    first = console.page.tell(left)
    console.page.wait(f"{left} < {first - 1}")
    console.conn.ask(requests.touch(job.id))
    console.page.wait(f"{left} >= {first - 1}")
    assert console.page.tell("window.body === document.querySelector('pre')")


def test_json_is_indented_and_each_word_of_it_stays_as_it_is(console: Console) -> None:
    console.put("orders", rb'{"id":12345678901234567890, "7":1.0,"a" : [1e400,"\"{,:", { }],"7":[]}')
    console.open("#/tube/orders")
    console.page.wait("document.querySelector('pre') !== null")
    assert console.page.tell("document.querySelector('pre').textContent").split("\n") == [
        "{",
        '  "id": 12345678901234567890,',
        '  "7": 1.0,',
        '  "a": [',
        "    1e400,",
        r'    "\"{,:",',
        "    { }",
        "  ],",
        '  "7": []',
        "}",
    ]


@pytest.mark.parametrize("size", [1024, 65536], ids=["listed", "next"])
def test_a_text_whose_shown_part_ends_within_a_character_is_shown_as_text(console: Console, size: int) -> None:
    tube = f"letters-{size}"
    console.put(tube, b"x" + "é".encode() * size)
    console.open(f"#/tube/{tube}")
    console.find(Body="é")
    console.page.wait("document.querySelectorAll('td .body').length > 0")
    for where in ("pre", "td .body"):
        assert console.page.tell(f"document.querySelector('{where}').textContent").startswith("xéé")


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
            console.find(Body="x")
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


def test_keys_lead_through_the_jobs_that_were_found(console: Console) -> None:
    ids = [console.put("found", b"x") for _ in range(2)]
    console.open("#/tube/found")
    console.find(Body="x")
    console.shows("2 match")
    console.page.tell("document.activeElement.blur()")
    for job_id in ids:
        console.page.press("j")
        assert console.page.tell("document.activeElement.ariaLabel") == f"select job {job_id}"
    console.page.press("c")
    console.page.wait("location.hash === '#/connections'")


def test_pages_are_live(console: Console) -> None:
    console.open()
    console.put("came-later", b"x")
    console.shows("came-later")


def test_a_page_that_the_server_turned_away_asks_again(console: Console) -> None:
    """As many listen as may, so it is answered 503. Browsers give up at that, and at a proxy's 502 while the server restarts."""
    with ExitStack() as others:
        events = f"{console.url}api/v1/events"
        told = [
            others.enter_context(httpx.stream("GET", events, trust_env=False)).iter_lines()
            for _ in range(MAX_LISTENERS)
        ]
        assert all(next(lines).startswith("id: ") for lines in told)
        console.page.open(console.url)
        console.page.wait("document.getElementById('live')?.textContent === 'no connection'")
    console.page.wait("document.querySelector('.live.on') !== null")
    # The answer 503.
    console.page.complaints.clear()
