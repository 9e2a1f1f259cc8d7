"""The log: when what it wrote is on disk, and whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from beanspiked.engine.embedded.database import PRIVATE
from beanspiked.engine.embedded.frames import LogFile, frames_of
from beanspiked.engine.embedded.log import SIZES, Log, read_log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = b"the same"


class Disk:
    """Knows which files and directories have changed since they were synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.unsynced: set[int] = set()
        self._pwrite, self._fsync = os.pwrite, os.fsync
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "fdatasync", self.fsync)

    def pwrite(self, fd: int, data: bytes, at: int) -> int:
        self.unsynced.add(os.fstat(fd).st_ino)
        return self._pwrite(fd, data, at)

    def fsync(self, fd: int) -> None:
        self._fsync(fd)
        self.unsynced.discard(os.fstat(fd).st_ino)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def resume(file: LogFile) -> None:
    """What stood behind the last frame would else be read again after a power loss, behind the next one."""
    file.begin(NAME, 1)
    file.append([b"one"], 0, sync=False)
    file.resume(file.header, file.end, file.last)


def forget(file: LogFile) -> None:
    """Its frames are folded, or a file that goes must not be missed."""
    file.begin(NAME, 1)
    file.forget()


def grow(file: LogFile) -> None:
    """A frame needs no room then, on a disk that is full."""
    file.grow(SIZES.first)


@pytest.mark.parametrize("prepare", [resume, forget, grow])
def test_what_is_done_to_a_file_before_its_next_frame_is_on_disk(
    tmp_path: Path, disk: Disk, prepare: Callable[[LogFile], None]
) -> None:
    file = LogFile(tmp_path / "log", PRIVATE)
    prepare(file)
    assert disk.unsynced == set()
    file.close()


def test_the_names_of_a_logs_files_are_on_disk_before_it_is_used(tmp_path: Path, disk: Disk) -> None:
    directory = tmp_path.stat().st_ino
    disk.unsynced.add(directory)
    log = Log(tmp_path, NAME, 0, [])
    assert directory not in disk.unsynced
    log.close(remove=True)


def test_a_frame_tells_of_all_that_was_synced_before_it(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"one"], sync=False)
    log.append([b"two"], sync=False)
    log.sync(again=False)
    log.append([b"three"], sync=False)
    assert [frame.durable for frame in frames_of(log.current.fd, log.current.header)] == [0, 0, 2]
    log.close(remove=True)


@pytest.mark.parametrize("again", [False, True], ids=["sync", "written again"])
def test_a_sync_reaches_both_files_while_one_waits_to_be_folded(tmp_path: Path, disk: Disk, again: bool) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"one"], sync=False)
    assert log.switch()
    log.append([b"two"], sync=False)
    assert len(disk.unsynced) == 2
    log.sync(again)
    assert disk.unsynced == set()
    assert log.is_durable()
    log.close(remove=True)


def test_a_file_that_got_no_frames_does_not_hide_those_of_the_next_one(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 0, [])
    for _ in range(2):
        # Of the two files either may be the empty one.
        log.append([b"old"], True)
        for _ in range(2):
            assert log.switch()
            log.folded()
        log.append([b"new"], True)
        found: list[bytes] = []
        read_log(tmp_path, NAME, log.current.last - 1, found.append)
        assert found == [b"new"]
        assert log.switch()
        log.folded()
    log.close(remove=False)


def test_a_frame_of_which_the_disk_takes_a_part_at_a_time_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    log = Log(tmp_path, NAME, 0, [])
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    for batch in (b"a batch of some bytes", b"another"):
        log.append([batch], sync=True)
    log.close(remove=False)
    found: list[bytes] = []
    read_log(tmp_path, NAME, 0, found.append)
    assert found == [b"a batch of some bytes", b"another"]
