"""Who may ask, and for what."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from conftest import Port

PUT = "/api/v1/tube/put?tube=t"
SECRET = "a long secret"
MARK = {"X-Beanspiked": "1"}


def put(port: Port, **headers: str) -> int:
    return port.request(
        "POST", PUT, {name.replace("_", "-"): value for name, value in headers.items()}, json={"body": "x"}
    ).status_code


def jobs(port: Port) -> int:
    return port.wire.engine.counts.jobs()


def test_without_the_secret_nothing_is_shown(make_port: Callable[..., Port]) -> None:
    port = make_port(token=SECRET)
    answer = port.get("/api/v1/overview")
    assert answer.status_code == 401
    assert "Basic" in answer.headers["www-authenticate"]
    assert port.get("/api/v1/overview", Authorization="Bearer wrong").status_code == 401
    assert port.get("/api/v1/overview", Authorization="Basic !!").status_code == 401
    assert port.get("/").status_code == 401


def test_the_secret_is_a_bearers_token_or_anybodys_password(make_port: Callable[..., Port]) -> None:
    port = make_port(token=SECRET)
    assert port.get("/api/v1/overview", Authorization=f"Bearer {SECRET}").status_code == 200
    basic = b64encode(f"me:{SECRET}".encode()).decode()
    assert port.get("/api/v1/overview", Authorization=f"Basic {basic}").status_code == 200


def test_a_change_needs_the_header_that_pages_of_other_sites_cannot_send(port: Port) -> None:
    assert put(port) == 403
    assert jobs(port) == 0
    assert put(port, X_Beanspiked="1") == 201
    assert jobs(port) == 1


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_change_that_a_page_of_another_site_asks_for_is_refused(port: Port, site: str) -> None:
    assert put(port, X_Beanspiked="1", Sec_Fetch_Site=site) == 403
    assert put(port, X_Beanspiked="1", Origin="http://evil.example") == 403
    assert jobs(port) == 0
    assert put(port, X_Beanspiked="1", Sec_Fetch_Site="same-origin", Origin="http://127.0.0.1:11301") == 201
    assert put(port, X_Beanspiked="1", Origin="http://127.0.0.1:11301") == 201


def test_without_a_secret_no_name_but_localhost_leads_here(port: Port, make_port: Callable[..., Port]) -> None:
    assert port.get("/", Host="evil.example:11301").status_code == 421
    assert port.get("/", Host="10.1.2.3").status_code == 200
    assert port.get("/", Host="localhost:11301").status_code == 200
    assert port.get("/", Host="[::1]:11301").status_code == 200
    assert port.get("/", Host="").status_code == 421
    guarded = make_port(token=SECRET)
    assert guarded.get("/", Host="queue.example", Authorization=f"Bearer {SECRET}").status_code == 200


def test_a_request_of_http_1_0_need_not_name_a_host(port: Port) -> None:
    async def ask(client: httpx.AsyncClient) -> int:
        request = client.build_request("GET", "/healthz")
        del request.headers["host"]
        return (await client.send(request)).status_code

    assert port.talk(ask) == 200


@pytest.mark.parametrize("host", ["[::1", "[foo]", "::1]"])
def test_a_host_that_cannot_be_read_does_not_lead_here(port: Port, host: str) -> None:
    assert port.get("/", Host=host).status_code == 421


@pytest.mark.parametrize("origin", ["http://[", "http://[foo]"])
def test_an_origin_that_cannot_be_read_is_another_site(port: Port, origin: str) -> None:
    assert put(port, X_Beanspiked="1", Origin=origin) == 403
    assert jobs(port) == 0


def test_credentials_that_are_not_ascii_are_wrong(make_port: Callable[..., Port]) -> None:
    answer = make_port(token=SECRET).request("GET", "/", {"Authorization": "Basic \xe9".encode("latin-1")})
    assert answer.status_code == 401


def test_a_read_only_port_changes_nothing(make_port: Callable[..., Port]) -> None:
    port = make_port(read_only=True)
    client = port.wire.connect()
    client.put(delay=9)
    assert put(port, X_Beanspiked="1") == 403
    assert port.change("DELETE", "/api/v1/jobs/1").status_code == 403
    assert port.post("/api/v1/jobs/1/kick").status_code == 403
    assert port.json("/api/v1/jobs/1")["state"] == "delayed"
    assert port.json("/api/v1/overview")["read_only"] is True


def test_nothing_is_executed_but_our_own_files(port: Port) -> None:
    for path in ("/", "/console.js", "/api/v1/overview", "/nothing", "/metrics"):
        policy = port.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert port.get(path).headers["x-content-type-options"] == "nosniff"


def test_below_a_prefix_everything_is_found_there_only(make_port: Callable[..., Port]) -> None:
    port = make_port(prefix="/queue", token=SECRET)
    key = {"Authorization": f"Bearer {SECRET}"}
    assert port.get("/queue/healthz").status_code == 200
    assert port.get("/queue/", **key).status_code == 200
    assert port.get("/queue/api/v1/overview", **key).status_code == 200
    assert port.get("/api/v1/overview", **key).status_code == 404


@pytest.mark.parametrize("path", ["/queue", "/queue/healthz/", "/queue/api/v1/tubes/"])
def test_a_redirect_names_no_scheme_and_no_host(make_port: Callable[..., Port], path: str) -> None:
    port = make_port(prefix="/queue", token=SECRET)
    answer = port.get(f"{path}?limit=5", Authorization=f"Bearer {SECRET}", Host="queue.example")
    assert answer.status_code == 307
    wanted = "/queue/" if path == "/queue" else path.removesuffix("/")
    assert answer.headers["location"] == f"{wanted}?limit=5"


def test_each_change_leaves_a_line_that_says_who_and_what(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    port.post(PUT, body="x")
    port.post("/api/v1/tube/pause?tube=t", seconds=5)
    port.post("/api/v1/jobs/1/delay", delay=5)
    port.post("/api/v1/jobs/1/kick")
    port.change("DELETE", "/api/v1/jobs/1")
    said = [record.getMessage() for record in caplog.records if record.name == "beanspiked.audit"]
    assert [line.partition("): ")[2] for line in said] == [
        "put job 1 of 1 bytes in t",
        "pause t for 5 s",
        "set the delay 5 of job 1 of t",
        "kick job 1 of t",
        "delete job 1 of t",
    ]
    assert all(line.startswith("admin: 127.0.0.1:") for line in said)


def test_no_name_of_a_user_breaks_the_line(make_port: Callable[..., Port], caplog: pytest.LogCaptureFixture) -> None:
    port = make_port(token=SECRET)
    basic = b64encode(f"me\nyou:{SECRET}".encode()).decode()
    assert put(port, X_Beanspiked="1", Authorization=f"Basic {basic}") == 401
    assert not [record for record in caplog.records if record.name == "beanspiked.audit"]


def test_a_look_leaves_no_line(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    port.get("/api/v1/tubes")
    assert not [record for record in caplog.records if record.name == "beanspiked.audit"]
