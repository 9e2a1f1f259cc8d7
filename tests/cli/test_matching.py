"""Jobs that match a filter, over a server's admin port: what the protocol cannot say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest
from either import Person, Running, bury, running
from launcher import free_port

from beanspiked.client.admin import AdminAddress, AdminConn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Commands

    from beanspiked.client.blocking import Conn

SECRET = "a long secret"
pytestmark = pytest.mark.usefixtures("server")

MISSING = "beanspiked: beanstalkd's protocol has no command for this: name the server's admin port with --admin or BEANSPIKED_ADMIN"


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[Running, int]]:
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEANSPIKED_ADMIN_TOKEN", SECRET)
        with running("beanspiked", "--admin", str(port)) as server:
            yield server, port


@pytest.fixture
def server(ports: tuple[Running, int], monkeypatch: pytest.MonkeyPatch) -> Running:
    """A server with an admin port, both named in the environment."""
    running_server, port = ports
    monkeypatch.setenv("BEANSPIKED_ADDR", running_server.address)
    monkeypatch.setenv("BEANSPIKED_ADMIN", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("BEANSPIKED_ADMIN_TOKEN", SECRET)
    return running_server


@pytest.fixture
def fruit(cli: Commands, conn: Conn, tube: str) -> str:
    """A tube with two buried jobs that were tried once, two ready ones, and a delayed one."""
    cli("put", tube, "red apple", "green apple")
    bury(conn, tube, 2)
    cli("put", tube, "red pear", "green pear", "--priority", "5")
    cli("put", tube, "red cherry", "--delay", "1h")
    return tube


def bodies(cli: Commands, tube: str, *words: str) -> list[str]:
    return [job["body"] for job in cli("jobs", tube, "--json", *words).json]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["red pear", "green pear", "red cherry", "red apple", "green apple"]),
        ("--grep red", ["red pear", "red cherry", "red apple"]),
        ("--grep a.p", []),
        ("--state buried", ["red apple", "green apple"]),
        ("--state reserved", []),
        ("--tries 1", ["red apple", "green apple"]),
        ("--priority 5", ["red pear", "green pear"]),
        ("--priority 6-9999", ["red cherry", "red apple", "green apple"]),
        ("--older 1h", []),
        ("--number 1", ["red pear"]),
    ],
)
def test_jobs_lists_all_that_match(cli: Commands, fruit: str, words: str, found: list[str]) -> None:
    assert bodies(cli, fruit, *words.split()) == found


def test_jobs_lists_whole_bodies_from_all_pages(cli: Commands, tube: str) -> None:
    large = "x" * 5000
    lines = [*map(str, range(250)), large]
    cli("put", tube, "-q", stdin="\n".join(lines).encode())
    assert bodies(cli, tube) == lines


def test_a_job_that_is_deleted_before_its_whole_body_is_read_is_not_listed(
    cli: Commands, tube: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = cli("put", tube, *(f"{number}{'x' * 2000}" for number in range(3))).out.split()
    read = AdminConn.body

    def late(port: AdminConn, job_id: int) -> bytes:
        if job_id == int(second):
            cli("delete", second)
        return read(port, job_id)

    monkeypatch.setattr(AdminConn, "body", late)
    assert [job["id"] for job in cli("jobs", tube, "--number", "2", "--json").json] == [int(first), int(third)]


def test_a_list_that_is_not_the_whole_says_so(cli: Commands, fruit: str) -> None:
    assert cli("jobs", fruit, "-n", "4").said == "beanspiked: only the first 4 jobs; list more with --number"
    assert cli("jobs", fruit, "-n", "5").err == ""


def test_a_buried_job_comes_with_the_reason(cli: Commands, tube: str, ports: tuple[Running, int]) -> None:
    job_id = cli("put", tube, "a").out.strip()
    port = f"http://127.0.0.1:{ports[1]}/api/v1"
    headers = {"X-Beanspiked": "1", "Authorization": f"Bearer {SECRET}"}
    assert httpx.post(f"{port}/jobs/{job_id}/bury", json={"reason": "poison"}, headers=headers).status_code == 200
    assert cli("jobs", tube, "--json").json[0]["reason"] == "poison"
    assert cli("jobs", tube).out.endswith("a  (poison)\n")


def test_only_what_matches_is_kicked(cli: Commands, fruit: str) -> None:
    assert cli("kick", fruit, "--grep", "red", "--yes").out == "1 job kicked\n"
    assert bodies(cli, fruit, "--state", "buried") == ["green apple"]


def test_delayed_jobs_are_kicked_beside_buried_ones(cli: Commands, fruit: str, ports: tuple[Running, int]) -> None:
    assert cli("kick", fruit, "--delayed", "--yes", "--admin", ports[1], "--json").json == {"kicked": 1, "missing": []}
    assert cli.states(fruit) == {"ready": 3, "buried": 2}


def test_jobs_are_kicked_by_their_ids(cli: Commands, fruit: str, ports: tuple[Running, int]) -> None:
    ids = [job["id"] for job in cli("jobs", fruit, "--json", "--grep", "red").json]
    result = cli("kick", "--admin", ports[1], "--id", *ids, 2**60, "--json", code=1)
    # The red pear was ready before.
    assert result.json == {"kicked": 2, "missing": [ids[0], 2**60]}
    assert f"beanspiked: job {2**60} is neither buried nor delayed" in result.err
    assert cli.states(fruit) == {"ready": 4, "buried": 1}


@pytest.mark.parametrize("words", ["--grep red", "--count", "--delayed"])
def test_ids_take_no_filter(cli: Commands, ports: tuple[Running, int], words: str) -> None:
    assert "--id names the jobs" in cli("kick", "--admin", ports[1], "--id", 1, *words.split(), code=5).err


def test_without_the_secret_no_job_is_kicked(
    cli: Commands, fruit: str, ports: tuple[Running, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, *_) = cli("jobs", fruit, "--json", "--state", "buried").json
    monkeypatch.delenv("BEANSPIKED_ADMIN_TOKEN")
    assert "needs a secret" in cli("kick", "--admin", ports[1], "--id", job["id"], code=1).said
    assert cli.states(fruit)["buried"] == 2


def test_only_what_matches_moves_and_stays_as_it_is(cli: Commands, fruit: str) -> None:
    other = f"{fruit}-other"
    assert cli("move", fruit, other, "-s", "buried", "-g", "green", "-y").out == f"1 job moved to {other}\n"
    assert (cli.states(other), bodies(cli, other)) == ({"buried": 1}, ["green apple"])


@pytest.mark.parametrize("words", ["--older 0s", "--tries 0", "--priority 0-4294967295"])
def test_a_filter_that_applies_to_all_jobs_is_one(cli: Commands, fruit: str, words: str) -> None:
    other = f"{fruit}-other"
    assert cli("move", fruit, other, "-s", "buried", *words.split(), "-y").out == f"2 jobs moved to {other}\n"
    # Over the protocol they would arrive ready.
    assert cli.states(other) == {"buried": 2}


def test_a_number_of_those_that_match_is_kicked(cli: Commands, fruit: str, ports: tuple[Running, int]) -> None:
    assert cli("kick", fruit, "1", "--count", "--admin", ports[1]).out == "1 job\n"
    assert cli("kick", fruit, "1", "--yes", "--admin", ports[1]).out == "1 job kicked\n"
    assert bodies(cli, fruit, "--state", "buried") == ["green apple"]
    assert cli("kick", fruit, "9", "--grep", "green", "--yes").out == "1 job kicked\n"


def test_a_number_of_those_that_match_moves(cli: Commands, fruit: str) -> None:
    other = f"{fruit}-other"
    assert cli("move", fruit, other, "-n", "1", "-g", "pear", "-y").out == f"1 job moved to {other}\n"
    assert (bodies(cli, other), bodies(cli, fruit, "-s", "ready")) == (["red pear"], ["green pear"])


def test_only_what_matches_is_deleted(cli: Commands, fruit: str) -> None:
    assert cli("clear", fruit, "--grep", "red", "--yes").out == "3 jobs deleted\n"
    assert bodies(cli, fruit) == ["green pear", "green apple"]


def test_a_tube_that_ends_with_its_last_job_is_cleared(cli: Commands, tube: str) -> None:
    cli("put", tube, "a", "b")
    assert cli("clear", tube, "--count").out == "2 jobs\n"
    assert cli("clear", tube, "--priority", "0-2000", "--yes", "--json").json == {"tube": tube, "deleted": 2}


@pytest.mark.parametrize(
    ("command", "matching"), [("kick {} -g red", 1), ("move {} b -g red", 1), ("clear {} -g red", 3), ("clear {}", 5)]
)
def test_count_only_counts(cli: Commands, fruit: str, command: str, matching: int) -> None:
    words = [*command.format(fruit).split(), "--count"]
    assert cli(*words).out == (f"{matching} jobs\n" if matching > 1 else "1 job\n")
    assert cli(*words, "--json").json == {"tube": fruit, "count": matching}
    assert cli.states(fruit) == {"ready": 2, "delayed": 1, "buried": 2}


@pytest.mark.parametrize(
    ("command", "question"),
    [
        ("kick {} -g red", "This makes 1 job ready. Type yes to go on:"),
        ("move {} b -g red", "This moves 1 job to b. Type yes to go on:"),
        ("clear {} -g red", "This deletes 3 jobs. Type the tube's name to go on:"),
    ],
)
@pytest.mark.parametrize("agrees", [True, False])
def test_a_change_is_confirmed_by_who_knows_how_many(
    cli: Commands, fruit: str, command: str, question: str, agrees: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Person((fruit if "clear" in command else "yes") if agrees else "no"))
    assert question in cli(*command.format(fruit).split(), code=0 if agrees else 1).err
    assert (cli.states(fruit) == {"ready": 2, "delayed": 1, "buried": 2}) is not agrees


@pytest.mark.parametrize("command", ["kick {} -g red", "move {} b -g red", "clear {} -g red"])
def test_without_a_terminal_yes_has_to_be_said(cli: Commands, fruit: str, command: str) -> None:
    assert "give --yes" in cli(*command.format(fruit).split(), code=5).err


@pytest.mark.parametrize(
    "command", ["jobs {} -o 1h", "kick {} -g red -y", "move {} b --tries 1 -y", "clear {} --count"]
)
def test_without_an_admin_port_what_is_missing_is_said(
    cli: Commands, fruit: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BEANSPIKED_ADMIN")
    assert cli(*command.format(fruit).split(), code=1).said.startswith(MISSING)


def test_a_server_that_is_named_is_not_taken_for_the_one_with_the_admin_port(
    cli: Commands, fruit: str, server: Running
) -> None:
    said = cli("clear", fruit, "-g", "red", "-y", "-a", server.address, code=1).said
    assert f"to the admin port that BEANSPIKED_ADMIN names, not to {server.address}" in said
    # One that lists jobs can do with the protocol.
    assert bodies(cli, fruit, "-a", server.address) == ["red pear", "red cherry", "red apple"]


def test_a_tube_that_is_not_there_is_named(cli: Commands, fruit: str) -> None:
    give_up_at = time.monotonic() + 10
    # The names come from a snapshot that may be a second old, in which another test's tube may be the nearest.
    while f"mean {fruit}?" not in (said := cli("clear", fruit[:-1], "-g", "red", "-y", code=1).said):
        assert time.monotonic() < give_up_at, said
        time.sleep(0.1)
    assert said == f"beanspiked: there is no tube {fruit[:-1]} (do you mean {fruit}?)"


def test_the_secret_may_be_in_a_file(
    cli: Commands, fruit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BEANSPIKED_ADMIN_TOKEN")
    assert "needs a secret" in cli("jobs", fruit, "-g", "red", code=1).said
    secret = tmp_path / "secret"
    secret.write_text("another one\n")
    assert "wrong one" in cli("jobs", fruit, "-g", "red", "--admin-token-file", str(secret), code=1).said
    secret.write_text(f"{SECRET}\n")
    assert len(bodies(cli, fruit, "-g", "red", "--admin-token-file", str(secret))) == 3
    assert "No such file" in cli("jobs", fruit, "-g", "a", "--admin-token-file", tmp_path / "none", code=1).said


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("127.0.0.1:1", "cannot ask the admin port http://127.0.0.1:1: connection refused"),
        ("ftp://here", "'ftp://here': must be a URL such as http://HOST:PORT, HOST:PORT or PORT"),
        ("here:port", "'here:port'"),
        ("a..b:1", "cannot ask the admin port http://a..b:1: no such host"),
        ("http://127.0.0.1:1/ü", "cannot ask the admin port http://127.0.0.1:1/%C3%BC: connection refused"),
    ],
)
def test_a_port_that_cannot_be_asked_is_said_so(cli: Commands, fruit: str, named: str, said: str) -> None:
    assert said in cli("jobs", fruit, "--admin", named, code=1).said


@pytest.mark.parametrize("secret", ["a long\nsecret", "a long secr€t"])
def test_a_secret_that_no_request_can_have_is_not_shown(
    cli: Commands, tube: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEANSPIKED_ADMIN_TOKEN", secret)
    said = cli("jobs", tube, code=1).said
    assert said == "beanspiked: BEANSPIKED_ADMIN_TOKEN: a secret has only printable ASCII characters"


def test_bytes_that_are_no_text_are_not_searched_for(cli: Commands, tube: str) -> None:
    assert "--grep: the admin port searches only for text" in cli("jobs", tube, "--grep", "\udcff", code=1).said


def test_the_protocols_port_is_no_admin_port(cli: Commands, fruit: str, server: Running) -> None:
    assert "cannot ask the admin port" in cli("jobs", fruit, "--admin", server.address, code=1).said


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("11301", "http://127.0.0.1:11301"),
        ("here", "http://here:11301"),
        ("here:80", "http://here:80"),
        ("http://[::1]:80/queue/", "http://[::1]:80/queue"),
        ("https://here", "https://here:443"),
        ("here/a%20b/ü", "http://here:11301/a%20b/%C3%BC"),
    ],
)
def test_an_admin_port_has_many_names(text: str, address: str) -> None:
    assert str(AdminAddress.parse(text)) == address
