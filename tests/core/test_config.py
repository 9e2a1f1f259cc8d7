"""The command line and the environment."""

from __future__ import annotations

import pytest

from beanspiked.config import Settings, UsageError, parse


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], Settings()),
        (["-p", "4000"], Settings(port=4000)),
        (["-p4000", "-p", "5000"], Settings(port=5000)),
        (["-VFVu", "user"], Settings(verbose=2, fsync_ms=-1, user="user")),
        (["-l", "::1", "-l", "unix:/x", "-b", "d", "-f50"], Settings(listen=("::1", "unix:/x"), journal="d", fsync_ms=50)),
        (["--store", "sqlite:d", "--port", "1"], Settings(journal="d", port=1)),
        (["--store", "memory:"], Settings()),
        (["-z", "1073741825"], Settings(max_job_size=1073741824, warnings=("maximum job size was set to 1073741824",))),
        (["--lenient-eol", "--drain-timeout", "9"], Settings(lenient_eol=True, drain_timeout=9.0)),
        (["--socket-mode", "660"], Settings(socket_mode=0o660)),
        (["-v"], Settings(action="version")),
        (["-p", "1", "-h", "-p", "nonsense"], Settings(action="help")),
    ],
)  # fmt: skip
def test_the_command_line_is_beanstalkds_and_more(argv: list[str], expected: Settings) -> None:
    assert parse(argv, {}) == expected


@pytest.mark.parametrize(
    "argv",
    [["x"], ["-q"], ["-p"], ["-p", "x"], ["-p", "65536"], ["-p", "9" * 5000], ["-z", "-1"], ["-b", "d", "--store", "memory:"],
     ["--store", "redis://x"], ["--store", "sqlite:"], ["--socket-mode", "999"], ["--drain-timeout", "soon"]],
)  # fmt: skip
def test_what_cannot_be_understood_is_said(argv: list[str]) -> None:
    with pytest.raises(UsageError, match=r"."):
        parse(argv, {})


def test_the_environment_sets_what_the_command_line_does_not() -> None:
    environ = {
        "BEANSPIKED_PORT": "4000",
        "BEANSPIKED_LISTEN": "::1, 127.0.0.1",
        "BEANSPIKED_NO_FSYNC": "yes",
        "BEANSPIKED_VERBOSE": "2",
    }
    expected = Settings(port=5000, listen=("::1", "127.0.0.1"), fsync_ms=-1, verbose=2)
    assert parse(["-p", "5000"], environ) == expected


def test_a_journal_on_the_command_line_replaces_a_store_in_the_environment() -> None:
    assert parse(["-b", "d"], {"BEANSPIKED_STORE": "sqlite:other", "BEANSPIKED_JOURNAL": "third"}).journal == "d"


def test_a_variable_that_cannot_be_understood_is_named() -> None:
    with pytest.raises(UsageError, match="BEANSPIKED_NO_FSYNC"):
        parse([], {"BEANSPIKED_NO_FSYNC": "perhaps"})


def test_help_is_given_whatever_the_environment_says() -> None:
    assert parse(["-h"], {"BEANSPIKED_PORT": "nonsense"}).action == "help"


def test_what_a_container_platform_sets_for_a_service_of_this_name_is_not_a_port() -> None:
    assert parse([], {"BEANSPIKED_PORT": "tcp://10.0.0.1:11300"}).port == 11300


@pytest.mark.parametrize("store", ["redis://x", "aerospike://db1", "aerospike://db1/jobs?tls=a%20b"])
def test_a_store_that_cannot_be_understood_is_blamed_on_where_it_was_found(store: str) -> None:
    with pytest.raises(UsageError, match=r"^--store: "):
        parse(["--store", store], {})
    with pytest.raises(UsageError, match=r"^BEANSPIKED_STORE: "):
        parse([], {"BEANSPIKED_STORE": store})


def test_what_contradicts_each_other_is_named_as_it_was_given() -> None:
    with pytest.raises(UsageError, match=r"^BEANSPIKED_JOURNAL and BEANSPIKED_STORE contradict"):
        parse([], {"BEANSPIKED_JOURNAL": "d", "BEANSPIKED_STORE": "memory:"})


def test_tls_without_any_authority_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    monkeypatch.setenv("SSL_CERT_DIR", "/nonexistent")
    with pytest.raises(UsageError, match=r"^--store: tls: this system has no certificate authorities"):
        parse(["--store", "aerospike://db1/jobs?tls=true"], {})


def test_a_port_of_aerospikes_without_its_host_does_not_silently_keep_jobs_in_memory() -> None:
    with pytest.raises(UsageError, match=r"^AEROSPIKE_HOST: missing"):
        parse([], {"AEROSPIKE_PORT": "3000"})
    assert parse(["--store", "memory:"], {"AEROSPIKE_PORT": "3000"}).shared is None
    linked = parse([], {"AEROSPIKE_PORT": "tcp://172.17.0.5:3000"}).shared
    assert linked is not None
    assert linked.hosts == (("172.17.0.5", 3000, None),)
