"""Where an Aerospike store is: the URL, the environment, and what the client is told."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import yaml

from beanspiked.ops.url import (
    AddressError,
    StoreAddress,
    client_config,
    from_environment,
    parse_address,
)

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("aerospike://db1/jobs", StoreAddress((("db1", 3000, None),), "jobs")),
        ("aerospike://db1:4000/jobs", StoreAddress((("db1", 4000, None),), "jobs")),
        ("aerospike://a,b:1,10.0.0.3/n", StoreAddress((("a", 3000, None), ("b", 1, None), ("10.0.0.3", 3000, None)), "n")),
        ("aerospike://[::1],[fe80::2]:65535/n", StoreAddress((("::1", 3000, None), ("fe80::2", 65535, None)), "n")),
        ("aerospike://u:p@db1/n", StoreAddress((("db1", 3000, None),), "n", "u", "p")),
        ("aerospike://db1/n?prefix=test-1_", StoreAddress((("db1", 3000, None),), "n", prefix="test-1_")),
        ("aerospike://db1/n?tls=true", StoreAddress((("db1", 3000, "db1"),), "n", tls=True)),
        ("aerospike://db1/n?tls=True", StoreAddress((("db1", 3000, "db1"),), "n", tls=True)),
        ("aerospike://db1/n?tls=FALSE", StoreAddress((("db1", 3000, None),), "n")),
        ("aerospike://a,b/n?tls=false", StoreAddress((("a", 3000, None), ("b", 3000, None)), "n")),
        ("aerospike://a,b/n?prefix=x&tls=c.d", StoreAddress((("a", 3000, "c.d"), ("b", 3000, "c.d")), "n", prefix="x", tls=True)),
    ],
)  # fmt: skip
def test_a_url_says_where_the_store_is(url: str, expected: StoreAddress) -> None:
    assert parse_address(url) == expected


def test_a_login_is_percent_decoded_and_may_have_what_separates_hosts() -> None:
    address = parse_address("aerospike://us%65r:p%40%2F%C3%A9,:x@db1/n")
    assert (address.user, address.password) == ("user", "p@/é,:x")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("aerospike:db1/n", "must be aerospike://"),
        ("sqlite:jobs", "must be aerospike://"),
        ("aerospike:///n", "the host is missing"),
        ("aerospike://db1,/n", "the host is missing"),
        ("aerospike://db1", "the namespace is missing"),
        ("aerospike://db1/", "the namespace is missing"),
        ("aerospike://db1/?tls=true", "the namespace is missing"),
        ("aerospike://db1/a/b", "a namespace has only"),
        ("aerospike://db1/a;b", "a namespace has only"),
        ("aerospike://db1/" + "n" * 32, "at most 31"),
        ("aerospike://db1:/n", r"the port must .* not \(empty\)"),
        ("aerospike://db1:0/n", "the port must"),
        ("aerospike://db1:65536/n", "the port must"),
        ("aerospike://db1:" + "9" * 5000 + "/n", "the port must"),
        ("aerospike://db1:x/n", "the port must .* not x"),
        ("aerospike://db 1/n", "not a host: db 1"),
        ("aerospike://::1/n", "needs brackets"),
        ("aerospike://[::1/n", "not an IPv6 address in brackets"),
        ("aerospike://[::1]3000/n", "not an IPv6 address in brackets"),
        ("aerospike://[db1]:3000/n", "not an IPv6 address in brackets"),
        ("aerospike://[::g]/n", "not an IPv6 address: ::g"),
        ("aerospike://db1/n?retries=3", "unknown option retries"),
        ("aerospike://db1/n?prefix=a&prefix=b", "prefix is given twice"),
        ("aerospike://db1/n?prefix=", r"prefix: must .* not \(empty\)"),
        ("aerospike://db1/n?prefix=a%20b", "prefix: must"),
        ("aerospike://db1/n?prefix=" + "p" * 41, "prefix: more than 40"),
        ("aerospike://db1/n?tls", r"tls: must .* not \(empty\)"),
        ("aerospike://db1/n?tls=", r"tls: must .* not \(empty\)"),
        ("aerospike://db1/n?&tls=true", r"unknown option \(empty\)"),
        ("aerospike://db1/n?tls=a%20b", "tls: must"),
        ("aerospike://user@db1/n", "USER:PASS"),
        ("aerospike://:pass@db1/n", "USER:PASS"),
        ("aerospike://user:@db1/n", "USER:PASS"),
        ("aerospike://user:%ff@db1/n", "percent-encoded"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_url_is_said(url: str, said: str) -> None:
    with pytest.raises(AddressError, match=said):
        parse_address(url)


@pytest.mark.parametrize(
    "url",
    ["aerospike://u:top/secret@db1/n", "aerospike://u:top?secret@db1/n", "aerospike://u:secret@db1:x/n",
     "aerospike://u:%ffsecret@db1/n", "aerospike://u:se@cret@db 1/n"],
)  # fmt: skip
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(url)
    assert not re.search("se|cret|top", str(caught.value).replace("USER:PASS", ""))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("aerospike://db1/n", "aerospike://db1:3000/n"),
        ("aerospike://u%40:secret@[::1]:1,b/n?prefix=bsd_", "aerospike://u%40:***@[::1]:1,b:3000/n"),
        ("aerospike://a/n?tls=true&prefix=p", "aerospike://a:3000/n?prefix=p&tls=true"),
        ("aerospike://a,b/n?tls=c", "aerospike://a:3000,b:3000/n?tls=c"),
    ],
)
def test_an_address_is_shown_as_its_url_without_the_password(url: str, shown: str) -> None:
    address = parse_address(url)
    assert str(address) == shown
    assert "secret" not in repr(address)


# --- the environment


@pytest.mark.parametrize(
    ("environ", "host", "port"),
    [
        ({"AEROSPIKE_HOST": "db1"}, "db1", 3000),
        ({"AEROSPIKE_HOST": "db1", "AEROSPIKE_PORT": "4000"}, "db1", 4000),
        ({"AEROSPIKE_HOST": "::1", "AEROSPIKE_PORT": ""}, "::1", 3000),
        ({"AEROSPIKE_PORT": "tcp://172.17.0.5:3001"}, "172.17.0.5", 3001),
        ({"AEROSPIKE_PORT": "tcp://[::1]:3001"}, "::1", 3001),
        ({"AEROSPIKE_HOST": "db1", "AEROSPIKE_PORT": "tcp://172.17.0.5:3001"}, "db1", 3001),
    ],
)
def test_go_beanspikes_variables_name_the_store(environ: dict[str, str], host: str, port: int) -> None:
    assert from_environment(environ) == StoreAddress(((host, port, None),), "beanspike")


def test_the_namespace_may_be_another() -> None:
    address = from_environment({"AEROSPIKE_HOST": "db1", "AEROSPIKE_NAMESPACE": "jobs"})
    assert address == StoreAddress((("db1", 3000, None),), "jobs")


@pytest.mark.parametrize(
    "environ", [{}, {"AEROSPIKE_HOST": ""}, {"AEROSPIKE_HOST": "", "AEROSPIKE_PORT": ""}, {"AEROSPIKE_NAMESPACE": "n"}]
)
def test_without_a_host_the_environment_names_no_store(environ: dict[str, str]) -> None:
    assert from_environment(environ) is None


def test_a_port_alone_is_an_error_that_names_what_is_missing() -> None:
    with pytest.raises(AddressError, match=r"^AEROSPIKE_HOST: missing, and AEROSPIKE_PORT alone"):
        from_environment({"AEROSPIKE_PORT": "3000"})


@pytest.mark.parametrize("host", ["127.0.0.1:15000", "db1:3000", "[::1]:3000"])
def test_who_puts_the_port_behind_the_host_is_told_where_it_belongs(host: str) -> None:
    with pytest.raises(AddressError, match=r"^AEROSPIKE_HOST: must be a host without a port, "):
        from_environment({"AEROSPIKE_HOST": host})


# What Kubernetes sets for a service that is called `aerospike`.
KUBERNETES = {"AEROSPIKE_PORT": "tcp://10.0.0.1:3000", "AEROSPIKE_SERVICE_HOST": "10.0.0.1"}


def test_what_kubernetes_sets_for_a_service_names_no_store() -> None:
    assert from_environment(KUBERNETES) is None
    assert from_environment({**KUBERNETES, "AEROSPIKE_PORT": "tcp://no such: thing"}) is None
    assert from_environment(KUBERNETES, "aerospike") == StoreAddress((("aerospike", 3000, None),), "beanspike")


def test_beside_what_kubernetes_sets_a_host_that_a_person_sets_counts() -> None:
    address = from_environment({**KUBERNETES, "AEROSPIKE_HOST": "db1"})
    assert address == StoreAddress((("db1", 3000, None),), "beanspike")


def test_a_default_host_stands_in_for_the_one_that_is_not_named() -> None:
    assert from_environment({"AEROSPIKE_PORT": "1"}, "aerospike") == StoreAddress(
        (("aerospike", 1, None),), "beanspike"
    )
    assert from_environment({"AEROSPIKE_HOST": "a"}, "aerospike") == StoreAddress((("a", 3000, None),), "beanspike")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AEROSPIKE_HOST", "db 1"), ("AEROSPIKE_HOST", "db1:3000"), ("AEROSPIKE_PORT", "x"), ("AEROSPIKE_PORT", "udp://172.17.0.5:3000"),
     ("AEROSPIKE_PORT", "tcp://:3000"), ("AEROSPIKE_PORT", "tcp://172.17.0.5:x"), ("AEROSPIKE_NAMESPACE", "a/b")],
)  # fmt: skip
def test_a_malformed_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(AddressError, match=f"^{variable}: "):
        from_environment({"AEROSPIKE_HOST": "db1", variable: value})


# --- the client


def test_the_client_is_told_the_hosts_and_to_look_often_who_is_there() -> None:
    config = client_config(parse_address("aerospike://a,[::1]:1/n"))
    assert config == {"hosts": [("a", 3000), ("::1", 1)], "tend_interval": 250}


def test_the_client_is_told_the_login() -> None:
    config = client_config(parse_address("aerospike://u:p@a/n"))
    assert (config["user"], config["password"]) == ("u", "p")


def authorities(monkeypatch: pytest.MonkeyPatch, cafile: str | None, capath: str | None) -> None:
    paths = ssl.DefaultVerifyPaths(cafile, capath, "SSL_CERT_FILE", "", "SSL_CERT_DIR", "")  # type: ignore[arg-type]
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)


@pytest.mark.parametrize(
    ("cafile", "capath", "expected"),
    [
        ("/ca.pem", None, {"enable": True, "cafile": "/ca.pem"}),
        (None, "/certs", {"enable": True, "capath": "/certs"}),
        ("/ca.pem", "/certs", {"enable": True, "cafile": "/ca.pem", "capath": "/certs"}),
    ],
)
def test_with_tls_the_client_is_told_names_and_authorities(
    monkeypatch: pytest.MonkeyPatch, cafile: str | None, capath: str | None, expected: dict[str, Any]
) -> None:
    authorities(monkeypatch, cafile, capath)
    config = client_config(parse_address("aerospike://a,b/n?tls=db"))
    assert config["hosts"] == [("a", 3000, "db"), ("b", 3000, "db")]
    assert config["tls"] == expected


def test_tls_without_any_authority_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    authorities(monkeypatch, None, None)
    with pytest.raises(AddressError, match="SSL_CERT_FILE"):
        client_config(parse_address("aerospike://a/n?tls=true"))


# --- the compose file


def test_the_compose_files_front_ends_use_its_nodes_and_the_namespace_that_these_have() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    conf = (DEPLOY / "aerospike" / "aerospike.conf").read_text()
    nodes = {name for name in services if name.startswith("aerospike-")}
    front_ends = [service for name, service in services.items() if name.startswith("beanspiked-")]
    assert len(nodes) == 3
    assert len(front_ends) == 2
    for front_end in front_ends:
        option, url = front_end["command"]
        address = parse_address(url)
        assert option == "--store"
        assert {host for host, _, _ in address.hosts} == nodes == set(front_end["depends_on"])
        assert re.findall(r"^namespace (\S+) \{", conf, re.MULTILINE) == [address.namespace]
    assert set(re.findall(r"^\s*mesh-seed-address-port (\S+) 3002$", conf, re.MULTILINE)) == nodes
