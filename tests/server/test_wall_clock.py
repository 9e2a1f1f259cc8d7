"""A server whose wall clock is set while it runs: what it wrote since means the same after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from lab.process import Servers

pytestmark = pytest.mark.real


@pytest.mark.parametrize("wrong_by", ["-49h", "+49h"])
def test_delays_and_pauses_outlast_a_crash_though_the_clock_was_wrong_at_the_start(
    servers: Servers, journal: Path, tmp_path: Path, faketime: str, wrong_by: str
) -> None:
    shown = tmp_path / "shown"
    shown.write_text(wrong_by)
    environ = {
        "LD_PRELOAD": faketime,
        "FAKETIME_TIMESTAMP_FILE": str(shown),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    server = servers.start("-b", journal, environ=environ)
    client = server.connect()
    client.ask(b"use mail")
    shown.write_text("+0")
    delayed = client.put(b"x", delay=3600)
    assert client.ask(b"pause-tube mail 3600").line == b"PAUSED"
    server.kill()
    client = servers.start("-b", journal).connect()
    stats = client.stats(b"stats-job %d" % delayed)
    assert stats["state"] == "delayed"
    assert 3500 < int(stats["time-left"]) <= 3600
    assert int(stats["age"]) < 60
    assert 3500 < int(client.stats(b"stats-tube mail")["pause-time-left"]) <= 3600
