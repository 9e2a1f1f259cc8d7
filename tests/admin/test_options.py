"""Which admin ports there can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from beanspiked.admin.options import AdminOptions
from beanspiked.config import UsageError, parse

TOKEN = {"BEANSPIKED_ADMIN_TOKEN": "a long secret"}


def told(*words: str, **environ: str) -> AdminOptions:
    options = parse(list(words), environ).admin
    assert options is not None
    return options


def test_there_is_none_unless_it_is_asked_for() -> None:
    assert parse([], TOKEN).admin is None


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("11301", "127.0.0.1", 11301),
        (":11301", "127.0.0.1", 11301),
        ("localhost:0", "127.0.0.1", 0),
        ("127.0.0.2:1", "127.0.0.2", 1),
        ("[::1]:1", "::1", 1),
    ],
)
def test_it_listens_on_loopback_unless_told_otherwise(value: str, host: str, port: int) -> None:
    options = told("--admin", value)
    assert (options.host, options.port) == (host, port)


@pytest.mark.parametrize("value", ["", "x", "host:1", "1.2.3.4:", "1.2.3.4:65536", "1.2.3:5", "::1:²"])
def test_what_is_no_address_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--admin: not"):
        told("--admin", value, **TOKEN)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "[::]"])
def test_an_address_that_others_reach_needs_a_secret_and_tls(host: str) -> None:
    address = f"{host}:1"
    with pytest.raises(UsageError, match="secret"):
        told("--admin", address, "--admin-insecure")
    with pytest.raises(UsageError, match="--admin-tls-cert"):
        told("--admin", address, **TOKEN)
    assert told("--admin", address, "--admin-insecure", **TOKEN).token == "a long secret"
    assert told("--admin", address, "--admin-tls-cert", "c", "--admin-tls-key", "k", **TOKEN).tls_cert == "c"


def test_the_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from the file\n")
    assert told("--admin", "1", "--admin-token-file", str(file), **TOKEN).token == "from the file"


@pytest.mark.parametrize("content", [b"", b"short", b"two\nlines of it", b"\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8"])
def test_a_secret_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="--admin-token-file"):
        told("--admin", "1", "--admin-token-file", str(file))
    with pytest.raises(UsageError, match="No such file"):
        told("--admin", "1", "--admin-token-file", str(tmp_path / "none"))


def test_the_environment_sets_all_of_it() -> None:
    options = told(
        BEANSPIKED_ADMIN="5",
        BEANSPIKED_ADMIN_READ_ONLY="yes",
        BEANSPIKED_ADMIN_PREFIX="/q/",
        BEANSPIKED_MAX_TUBE_SERIES="7",
        BEANSPIKED_TUBE_SERIES_MAP="reply-.*=reply",
    )
    assert (options.port, options.read_only, options.prefix, options.max_tube_series) == (5, True, "/q", 7)
    [(pattern, name)] = options.tube_series_map
    assert pattern.fullmatch("reply-5")
    assert name == "reply"


@pytest.mark.parametrize("url", ["http://queue.example:11301", "HTTPS://queue.example/q"])
def test_the_url_that_commands_ask_is_not_an_address_to_listen_on(url: str) -> None:
    assert parse([], {"BEANSPIKED_ADMIN": url}).admin is None
    assert told("--admin", "5", BEANSPIKED_ADMIN=url).port == 5


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"BEANSPIKED_ADMIN": "x:1"}, "BEANSPIKED_ADMIN: not an address"),
        ({"BEANSPIKED_ADMIN": "5", "BEANSPIKED_ADMIN_PREFIX": "q"}, "BEANSPIKED_ADMIN_PREFIX: "),
        ({"BEANSPIKED_ADMIN_READ_ONLY": "yes"}, "BEANSPIKED_ADMIN_READ_ONLY needs --admin"),
    ],
)
def test_what_is_wrong_with_a_variable_names_the_variable(environ: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}"):
        parse([], environ)


@pytest.mark.parametrize(
    "words",
    [
        ["--admin-read-only"],
        ["--admin", "1", "--admin-tls-cert", "c"],
        ["--admin", "1", "--admin-prefix", "q"],
        ["--admin", "1", "--admin-prefix", "//q"],
        ["--admin", "1", "--max-tube-series", "-1"],
        ["--admin", "1", "--tube-series-map", "x"],
        ["--admin", "1", "--tube-series-map", "(=x"],
        ["--admin", "1", "--tube-series-map", "x=\udce4"],
    ],
)
def test_what_contradicts_itself_or_is_malformed_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words, {})
