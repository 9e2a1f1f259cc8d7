"""The command line and the environment."""

from __future__ import annotations

import pytest

from beanspiked.config import LONG, Settings, UsageError, parse


def told(settings: Settings) -> dict[str, object]:
    """What differs from the defaults."""
    values = {name: getattr(settings, name) for name in Settings.__annotations__}
    return {name: value for name, value in values.items() if value != getattr(Settings, name)}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["-p", "4000"], {"port": "4000"}),
        (["-p4000", "-p", "5000"], {"port": "5000"}),
        (["-VFVu", "user"], {"verbose": 2, "fsync_ms": -1, "user": "user"}),
        (["-l", "::1", "-l", "unix:/x", "-b", "d", "-f50"], {"listen": ("::1", "unix:/x"), "journal": "d", "fsync_ms": 50}),
        (["--store", "sqlite:d", "--port", "1"], {"journal": "d", "port": "1"}),
        (["--store", "memory:"], {}),
        (["--lenient-eol", "--drain-timeout", "9"], {"lenient_eol": True, "drain_timeout": 9.0}),
        (["--socket-mode", "660"], {"socket_mode": 0o660}),
        (["--tcp-keepalive", "0"], {"tcp_keepalive": 0}),
        (["--io", "python"], {"io": "python"}),
        (["--listen=::1", "--no-f", "--"], {"listen": ("::1",), "fsync_ms": -1}),
        (["-v"], {"action": "version"}),
        (["-p", "1", "-h", "-p", "nonsense"], {"action": "help"}),
    ],
)  # fmt: skip
def test_the_command_line_is_beanstalkds_and_more(argv: list[str], expected: dict[str, object]) -> None:
    assert told(parse(argv, {})) == expected


CLAMPED = {"max_job_size": 1073741824, "warnings": ("maximum job size was set to 1073741824",)}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["-z", "1073741825"], CLAMPED),
        (["-z", "-1"], CLAMPED),
        (["-z", "9" * 5000], CLAMPED),
        (["-z", "+5"], {"max_job_size": 5}),
        (["-z", " \t005"], {"max_job_size": 5}),
        (["-f", "4294967296"], {"fsync_ms": 4294967296}),
        # beanstalkd counts nanoseconds, which these overflow; then it syncs each time.
        (["-f", "-1"], {}),
        (["-f", "9" * 30], {}),
        (["-s", "-1"], {"binlog_size": 2**64 - 1}),
        (["-p", "http"], {"port": "http"}),
        (["-p", "abc"], {"port": "abc"}),
        (["-p", "-1"], {"port": "-1"}),
    ],
)
def test_numbers_and_service_names_are_read_as_beanstalkd_reads_them(
    argv: list[str], expected: dict[str, object]
) -> None:
    assert told(parse(argv, {})) == expected


@pytest.mark.parametrize(
    "argv",
    [["x"], ["-q"], ["-p"], ["-p", "65536"], ["-p", "9" * 5000], ["-z", "x"], ["-z", "5x"], ["-z", "0x10"], ["-z", "5 "], ["-z", "--5"],
     ["-b", "d", "--store", "memory:"], ["--store", "redis://x"], ["--socket-mode", "999"], ["--drain-timeout", "soon"], ["-"],
     ["--", "x"], ["--no-fsync=yes"], ["--no-such"], ["--s", "1"], ["--port"], ["-Fp"], ["--tcp-keepalive", "32768"], ["--io", "uring"]],
)  # fmt: skip
def test_what_cannot_be_understood_is_said(argv: list[str]) -> None:
    with pytest.raises(UsageError, match=r"."):
        parse(argv, {})


WITH_VALUE = [
    "-l",
    "-p",
    "-b",
    "-f",
    "-z",
    "-s",
    "--store",
    "--socket-mode",
    "--drain-timeout",
    "--tcp-keepalive",
    "--io",
]


@pytest.mark.parametrize("argv", [*([flag, ""] for flag in WITH_VALUE), ["-l", "unix:"], ["--store", "sqlite:"]])
def test_an_empty_value_is_a_mistake(argv: list[str]) -> None:
    with pytest.raises(UsageError, match=argv[0]):
        parse(argv, {})


@pytest.mark.parametrize("name", [name for name in LONG if name not in ("version", "help")])
def test_a_variable_that_is_empty_is_one_that_is_not_set(name: str) -> None:
    assert told(parse([], {"BEANSPIKED_" + name.upper().replace("-", "_"): ""})) == {}


@pytest.mark.parametrize("listen", [" ", ",", " , "])
def test_a_variable_that_names_no_address_does_not_listen_on_all(listen: str) -> None:
    with pytest.raises(UsageError, match="BEANSPIKED_LISTEN"):
        parse([], {"BEANSPIKED_LISTEN": listen})


def test_a_mistyped_store_does_not_show_its_password() -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--store", "Aerospike://user:secret@db1/jobs"], {})
    assert "secret" not in str(caught.value)


def test_the_environment_sets_what_the_command_line_does_not() -> None:
    environ = {
        "BEANSPIKED_PORT": "4000",
        "BEANSPIKED_LISTEN": "::1, 127.0.0.1",
        "BEANSPIKED_NO_FSYNC": "yes",
        "BEANSPIKED_VERBOSE": "2",
    }
    expected = {"port": "5000", "listen": ("::1", "127.0.0.1"), "fsync_ms": -1, "verbose": 2}
    assert told(parse(["-p", "5000"], environ)) == expected


def test_a_journal_on_the_command_line_replaces_a_store_in_the_environment() -> None:
    assert parse(["-b", "d"], {"BEANSPIKED_STORE": "sqlite:other", "BEANSPIKED_JOURNAL": "third"}).journal == "d"


def test_a_variable_that_cannot_be_understood_is_named() -> None:
    with pytest.raises(UsageError, match="BEANSPIKED_NO_FSYNC"):
        parse([], {"BEANSPIKED_NO_FSYNC": "perhaps"})


def test_help_is_given_whatever_the_environment_says() -> None:
    assert parse(["-h"], {"BEANSPIKED_PORT": "nonsense"}).action == "help"


def test_what_a_container_platform_sets_for_a_service_of_this_name_is_not_a_port() -> None:
    assert parse([], {"BEANSPIKED_PORT": "tcp://10.0.0.1:11300"}).port == "11300"


@pytest.mark.parametrize("store", ["redis://x", "aerospike://db1", "aerospike://db1/jobs?tls=a%20b"])
def test_a_store_that_cannot_be_understood_is_blamed_on_where_it_was_found(store: str) -> None:
    with pytest.raises(UsageError, match=r"^--store: "):
        parse(["--store", store], {})
    with pytest.raises(UsageError, match=r"^BEANSPIKED_STORE: "):
        parse([], {"BEANSPIKED_STORE": store})


def test_what_contradicts_each_other_is_named_as_it_was_given() -> None:
    with pytest.raises(UsageError, match=r"^BEANSPIKED_JOURNAL and BEANSPIKED_STORE exclude"):
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


# --- what chooses the store is said, unless a flag did

# What Kubernetes sets for a service that is called `aerospike`.
KUBERNETES = {"AEROSPIKE_PORT": "tcp://10.0.0.1:3000", "AEROSPIKE_SERVICE_HOST": "10.0.0.1"}


def test_what_kubernetes_sets_for_a_service_alone_chooses_nothing_and_that_is_said() -> None:
    settings = parse([], KUBERNETES)
    assert settings.shared is None
    assert "Kubernetes" in settings.notices[0]


def test_beside_what_kubernetes_sets_a_host_that_a_person_sets_chooses() -> None:
    settings = parse([], {**KUBERNETES, "AEROSPIKE_HOST": "db1"})
    assert settings.shared is not None
    assert settings.shared.hosts == (("db1", 3000, None),)
    assert settings.notices == ("AEROSPIKE_HOST chooses the store: aerospike://db1:3000/beanspike",)


def test_beside_what_kubernetes_sets_a_port_that_is_a_number_is_a_persons() -> None:
    with pytest.raises(UsageError, match=r"^AEROSPIKE_HOST: missing"):
        parse([], {**KUBERNETES, "AEROSPIKE_PORT": "3000"})


@pytest.mark.parametrize(
    ("environ", "notice"),
    [
        ({"BEANSPIKED_STORE": "memory:"}, "BEANSPIKED_STORE chooses the store: memory:"),
        ({"BEANSPIKED_STORE": "sqlite:d"}, "BEANSPIKED_STORE chooses the store: sqlite:d"),
        ({"BEANSPIKED_JOURNAL": "d"}, "BEANSPIKED_JOURNAL chooses the store: sqlite:d"),
        (
            {"BEANSPIKED_STORE": "aerospike://user:secret@db1/jobs", "AEROSPIKE_HOST": "db2"},
            "BEANSPIKED_STORE chooses the store: aerospike://user:***@db1:3000/jobs",
        ),
        ({"AEROSPIKE_HOST": "db1"}, "AEROSPIKE_HOST chooses the store: aerospike://db1:3000/beanspike"),
        (
            {"AEROSPIKE_PORT": "tcp://172.17.0.5:3000"},
            "AEROSPIKE_PORT chooses the store: aerospike://172.17.0.5:3000/beanspike",
        ),
    ],
)
def test_the_variable_that_chooses_the_store_is_named(environ: dict[str, str], notice: str) -> None:
    assert parse([], environ).notices == (notice,)


def test_nothing_is_said_where_flags_or_nobody_chose() -> None:
    assert parse([], {}).notices == ()
    assert parse(["-b", "d"], {"BEANSPIKED_STORE": "memory:", **KUBERNETES}).notices == ()
    assert parse(["--store", "memory:"], {"AEROSPIKE_HOST": "db1"}).notices == ()


# --- workers


CLUSTER = ["--store", "aerospike://db1/jobs"]


def test_workers_share_a_cluster() -> None:
    settings = parse([*CLUSTER, "--workers", "2", "--stats-of", "worker"], {})
    assert (settings.workers, settings.stats_of) == (2, "worker")
    settings = parse(["--workers=3"], {"AEROSPIKE_HOST": "db1"})
    assert (settings.workers, settings.stats_of) == (3, "all")


@pytest.mark.parametrize("store", [[], ["--store", "memory:"], ["-b", "d"]], ids=["none", "memory", "journal"])
def test_workers_are_refused_where_they_cannot_share_the_jobs(store: list[str]) -> None:
    with pytest.raises(UsageError, match=r"^--workers: needs a store that processes can share"):
        parse([*store, "--workers", "2"], {})
    with pytest.raises(UsageError, match=r"^--workers: needs a store that processes can share"):
        parse(store, {"BEANSPIKED_WORKERS": "2"})


@pytest.mark.parametrize(
    ("option", "value"), [("--workers", "0"), ("--workers", "-1"), ("--workers", "257"), ("--stats-of", "one")]
)
def test_a_number_of_workers_that_cannot_be_is_refused(option: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{option}: "):
        parse([*CLUSTER, option, value], {})
