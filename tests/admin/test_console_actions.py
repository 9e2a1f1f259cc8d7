"""What can be done in the console, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from console import EVIL_BODY

from beanspiked.client import requests

if TYPE_CHECKING:
    from console import Console

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.xdist_group("chromium")]


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
    console.page.wait("document.getElementById('said').textContent.includes('3 deleted')")
    # The tube went with its last job, and the page says so.
    console.says("there is no tube bin")
    console.open()
    console.page.complaints.clear()


def test_jobs_are_found_counted_moved_and_deleted(console: Console) -> None:
    for body in (b"red apple", b"red pear", EVIL_BODY):
        console.put("fruit", body)
    console.open("#/tube/fruit")
    console.find(Body="red")
    console.shows("2 match")
    assert console.page.tell("[...document.querySelectorAll('td .body')].map((one) => one.textContent).join()") == (
        "red apple,red pear"
    )
    console.picture("find")
    console.page.click("Move all")
    console.page.fill("To the tube", "basket")
    console.page.click("Move them", "dialog")
    console.page.wait("document.getElementById('said').textContent.includes('2 moved to basket')")
    console.find(Body="img")
    console.shows("1 match")
    assert console.page.tell("document.querySelector('td .body').textContent") == EVIL_BODY.decode()
    console.page.click("Delete all")
    console.page.fill("Type", "fruit")
    console.page.click("Delete them", "dialog")
    console.page.wait("document.getElementById('said').textContent.includes('1 deleted')")
    basket = console.conn.ask(requests.stats_tube("basket"))
    assert basket is not None
    assert basket["current-jobs-ready"] == 2


def test_a_selection_is_buried_and_all_that_match_are_duplicated(console: Console) -> None:
    for body in (b"plum", b"pear", b"peach"):
        console.put("mixed", body, priority=9)
    console.open("#/tube/mixed")
    console.find()
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


def test_a_job_is_delayed_and_moved(console: Console) -> None:
    job = console.put("early", b"x")
    console.open("#/tube/early")
    console.page.click("Delay", "document.querySelector('.jobs')")
    console.page.fill("Ready in", "3000")
    console.page.click("Change", "dialog")
    console.says(f"job {job} is ready in 3000 s")
    console.shows(f"Next delayed: {job}")
    # Another delay of a delayed job is shown at once.
    console.page.click("Delay", "document.querySelector('.jobs')")
    console.page.fill("Ready in", "600")
    console.page.click("Change", "dialog")
    console.page.wait("document.querySelector('.jobs').innerText.includes('10 min')")
    console.page.click("Move", "document.querySelector('.jobs')")
    console.page.fill("To the tube", "elsewhere")
    console.page.click("Move", "dialog")
    console.says(f"job {job} moved to elsewhere")
    assert console.conn.ask(requests.stats_tube("elsewhere"))["current-jobs-delayed"] == 1


def test_a_selection_of_held_jobs_is_released_and_all_that_match_are_delayed(console: Console) -> None:
    for _ in range(3):
        console.put("taken", b"x")
    console.conn.ask(requests.watch("taken"))
    for _ in range(3):
        console.conn.ask(requests.reserve())
    console.open("#/tube/taken")
    console.find(State="reserved")
    console.shows("3 match")
    console.page.tell("[...document.querySelectorAll('td input')].slice(0, 2).forEach((one) => one.click())")
    console.page.click("Release", "document.querySelector('div.bar[role=status]')")
    console.page.click("Release them", "dialog")
    console.says("2 released")
    console.find(State="ready")
    console.shows("2 match")
    console.page.click("Delay all")
    console.page.fill("Ready in", "500")
    console.page.click("Change it", "dialog")
    console.says("2 are ready in 500 s")
    assert console.conn.ask(requests.stats_tube("taken"))["current-jobs-delayed"] == 2


def test_a_selection_is_kicked_moved_duplicated_and_deleted(console: Console) -> None:
    for body in (b"a", b"b", b"c"):
        console.put("picked", body, delay=900)

    def pick(state: str, count: int, what: str, **fields: str) -> None:
        # A new page, so that no row of an earlier list is taken for one of this.
        console.open("#/tube/picked")
        console.find(State=state)
        console.page.wait(f"document.querySelectorAll('td input').length >= {count}")
        console.page.tell(f"[...document.querySelectorAll('td input')].slice(0, {count}).forEach((one) => one.click())")
        console.shows(f"{count} of ")
        console.page.click(what, "document.querySelector('div.bar[role=status]')")
        for label, value in fields.items():
            console.page.fill(label, value)
        console.page.click(f"{what} them", "dialog")

    pick("delayed", 2, "Kick")
    console.says("2 kicked")
    pick("ready", 1, "Move", To="away")
    console.says("1 moved to away")
    pick("ready", 1, "Duplicate")
    console.says("1 duplicated")
    pick("delayed", 1, "Delete", Type="picked")
    console.says("1 deleted")
    told = console.conn.ask(requests.stats_tube("picked"))
    assert (told["current-jobs-ready"], told["current-jobs-delayed"]) == (2, 0)


def test_a_pause_counts_down(console: Console) -> None:
    console.put("slow", b"x")
    console.open("#/tube/slow")
    console.page.click("Pause")
    console.page.fill("For how many", "3700")
    console.page.click("Pause", "dialog")
    console.shows("1:01:3")
    left = "/[0-9]:[0-9:]+ left/.exec(document.body.innerText)[0]"
    before = console.page.tell(left)
    console.page.wait(f"{left} < {before!r}")
    console.page.tell("location.hash = '#/'")
    console.shows("paused, 1:01:")
    console.page.tell("location.hash = '#/tube/slow'")
    console.page.click("Pause")
    console.page.fill("For how many", "0")
    console.page.click("Pause", "dialog")
    console.says("not paused any more")


@pytest.mark.parametrize("typed", ["", "4294967296"])
def test_a_form_asks_for_a_number_that_is_none(console: Console, typed: str) -> None:
    console.put("numbers", b"x")
    console.open("#/tube/numbers")
    for action, label in (("Pause", "For how many"), ("Kick", "How many"), ("Put", "Time to run"), ("Put", "Delay")):
        console.page.click(action)
        console.page.fill(label, typed)
        console.page.click(action, "dialog")
        assert console.page.tell("dialog.open && dialog.querySelector('input:invalid') !== null"), label
        console.page.click("Cancel")


def test_many_lines_are_put(console: Console) -> None:
    console.put("lines", b"x")
    console.open("#/tube/lines")
    console.page.click("Put")
    console.page.fill("Body", "one\n\ntwo\nthree")
    console.page.fill("Put it as", "a job for each line")
    console.picture("put")
    console.page.click("Put", "dialog")
    console.says("3 jobs are put")
    assert console.conn.ask(requests.stats_tube("lines"))["current-jobs-ready"] == 4


def test_a_job_is_put_from_a_template_and_like_a_former_one(console: Console) -> None:
    former = console.put("again", "h\u00e9".encode() * 50_000, priority=7, ttr=9)
    console.open("#/tube/again")
    # Of a large body the page shows only the beginning.
    console.page.click("Put again")
    console.page.wait("dialog.open")
    console.page.fill("Keep it", "greeting")
    console.page.click("Put", "dialog")
    console.says(f"job {former + 1} is put")
    console.page.click("Put")
    console.page.fill("Template", "greeting")
    console.page.click("Put", "dialog")
    console.says(f"job {former + 2} is put")
    console.conn.ask(requests.watch("again"))
    for _ in range(3):
        job = console.conn.ask(requests.reserve())
        told = console.conn.ask(requests.stats_job(job.id))
        assert (job.body, told["pri"], told["ttr"]) == ("h\u00e9".encode() * 50_000, 7, 9)
        console.conn.ask(requests.delete(job.id))
    console.put("again", b"second", delay=900)
    console.find(State="delayed")
    console.shows("1 match")
    console.page.tell("document.querySelector('td input').click()")
    console.page.click("Put again", "document.querySelector('div.bar[role=status]')")
    console.page.click("Put", "dialog")
    console.says("is put")
    assert console.conn.ask(requests.reserve()).body == b"second"
    console.put("again", b"\xff")
    console.page.wait("document.querySelector('.jobs').innerText.includes('ff')")
    console.page.click("Put again")
    console.says("is not text")


def test_a_body_that_a_form_would_change_is_not_put_again(console: Console) -> None:
    marked = b"\xef\xbb\xbf{}"
    for body, said in ((b"GET /\r\n\r\n", "which a form loses"), (marked, "is put")):
        former = console.put("exact", body)
        console.open("#/tube/exact")
        console.shows(f"Next ready: {former}")
        console.page.click("Put again")
        if said == "is put":
            console.page.click("Put", "dialog")
        console.says(said)
        console.conn.ask(requests.delete(former))
    console.conn.ask(requests.watch("exact"))
    assert console.conn.ask(requests.reserve()).body == marked, "a byte order mark stays"


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
        console.says("is forgotten" if not body else "is put")


def test_a_connection_is_closed(console: Console) -> None:
    console.conn.ask(requests.watch("mine"))
    console.open("#/connections")
    console.shows("mine")
    console.page.click("Close", "document.querySelector('tbody')")
    console.page.click("Close", "dialog")
    console.page.wait("document.getElementById('said').textContent.includes('closed')")
