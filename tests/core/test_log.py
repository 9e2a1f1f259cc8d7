"""The log: what a power loss, a kill or a damaged disk leaves of it, and how it is folded into the database."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest
from journals import FILES, Stores, crash

from beanspiked.engine.embedded import log as log_module
from beanspiked.engine.embedded.backup import backup
from beanspiked.engine.embedded.database import FILE_NAME, log_paths
from beanspiked.engine.embedded.frames import START
from beanspiked.engine.embedded.log import SIZES, Log, read_log
from beanspiked.engine.embedded.parts import read_part
from beanspiked.engine.embedded.records import encode
from beanspiked.engine.embedded.write import DELETE, PUT, Write
from beanspiked.engine.errors import StoreUnusable
from beanspiked.engine.jobs import Job, Tube

NAME = b"the same"
BATCHES = [b"one", b"the second batch", b"", b"3" * 100, b"the last batch of all"]


def written(directory: Path, batches: list[bytes], sync: bool = True) -> tuple[Path, list[int]]:
    """Write batches to a new log; return its first file, and where each frame ends."""
    log = Log(directory, NAME, 0, [])
    ends = []
    for batch in batches:
        log.append([batch], sync)
        ends.append(log.current.end)
    log.close(remove=False)
    return log.current.path, ends


def read(directory: Path, folded: int = 0) -> list[bytes]:
    found: list[bytes] = []
    read_log(directory, NAME, folded, found.append)
    return found


# --- power losses


@pytest.mark.parametrize("tail", ["zeros", "noise", "an older log"])
def test_a_power_loss_at_any_byte_leaves_the_batches_before_it(tmp_path: Path, tail: str) -> None:
    if tail == "an older log":
        # The same numbers and places under another salt.
        older, _ = written(tmp_path, BATCHES)
        rest = older.read_bytes()
        older.unlink()
    path, ends = written(tmp_path, BATCHES)
    data = path.read_bytes()
    if tail == "zeros":
        rest = bytes(len(data))
    elif tail == "noise":
        rest = random.Random(1).randbytes(len(data))
    for cut in range(START, ends[-1] + 1):
        torn = data[:cut] + rest[cut:]
        path.write_bytes(torn)
        # What was lost may have been what stood there before.
        whole = sum(torn[:end] == data[:end] for end in ends)
        assert read(tmp_path) == BATCHES[:whole], cut


def test_a_file_that_had_grown_may_end_anywhere(tmp_path: Path) -> None:
    path, ends = written(tmp_path, [b"one", b"2" * SIZES.first, b"three"])
    data = path.read_bytes()
    for cut in (SIZES.first, ends[1] - 1, ends[1], ends[2] - 1):
        path.write_bytes(data[:cut])
        assert read(tmp_path) == ([b"one", b"2" * SIZES.first] if cut >= ends[1] else [b"one"]), cut


def test_a_batch_whose_pages_came_to_the_disk_out_of_order_is_dropped(tmp_path: Path) -> None:
    path, ends = written(tmp_path, [b"one", b"2" * 20_000])
    data = path.read_bytes()
    for page in range(4096, ends[-1], 4096):
        path.write_bytes(data[:page] + bytes(4096) + data[page + 4096 :])
        assert read(tmp_path) == [b"one"]


def test_what_follows_a_batch_that_nobody_relied_on_is_dropped_and_never_comes_back(tmp_path: Path) -> None:
    path, ends = written(tmp_path, [b"one", b"two"], sync=False)
    log = Log(tmp_path, NAME, 0, read_log(tmp_path, NAME, 0, list))
    for batch in (b"3rd", b"4th"):
        log.append([batch], False)
    log.close(remove=False)
    with path.open("r+b") as file:
        file.seek(ends[1])
        file.write(bytes(4))
    found = read_log(tmp_path, NAME, 0, list)
    assert read(tmp_path) == [b"one", b"two"]
    log = Log(tmp_path, NAME, 0, found)
    # It ends where the fourth begins.
    log.append([b"new"], True)
    log.close(remove=False)
    assert read(tmp_path) == [b"one", b"two", b"new"]


def test_a_file_whose_predecessor_lost_batches_that_nobody_relied_on_is_dropped_and_never_comes_back(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path, NAME, 0, [])
    first = log.current
    for batch in (b"one", b"two"):
        log.append([batch], False)
    two_at = first.end - 1
    assert log.switch()
    log.append([b"three"], False)
    log.close(remove=False)
    with first.path.open("r+b") as file:
        file.seek(two_at)
        file.write(b"?")
    assert read(tmp_path) == [b"one"]
    log = Log(tmp_path, NAME, 0, read_log(tmp_path, NAME, 0, list))
    log.append([b"new"], True)
    log.close(remove=False)
    assert read(tmp_path) == [b"one", b"new"]


def test_a_frame_that_was_refused_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"one"], True)

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            log.append([b"refused"], True)
    assert read(tmp_path) == [b"one"]
    log.append([b"two"], True)
    assert read(tmp_path) == [b"one", b"two"]
    log.close(remove=True)


def test_a_frame_that_was_refused_does_not_take_the_place_of_one_in_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"one"], True)
    first = log.current.path
    data = b""

    def fail(_: int) -> None:
        nonlocal data
        data = first.read_bytes()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            log.append([b"refused"], True)
    assert log.switch()
    log.append([b"two"], True)
    # What was written over it is lost with the power.
    first.write_bytes(data)
    assert [read(tmp_path, folded) for folded in (0, 1)] == [[b"one", b"two"], [b"two"]]
    log.close(remove=False)


def test_a_frame_that_was_refused_is_not_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(number, Tube(1, "t"), 0, 0, 60, 0, b"") for number in (1, 2)]
    log = Log(tmp_path, NAME, 0, [])
    log.append(encode([Write(PUT, jobs[0])], 0), True)
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            # Nor can the frame be written over.
            patch.setattr(os, "pwrite", fail)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            log.append(encode([Write(DELETE, jobs[0])], 0), True)
    assert log.switch()
    log.append(encode([Write(PUT, jobs[1])], 0), True)
    assert log.full is not None
    assert read_part([log.full, log.current], 0).net.put_ids() == [1, 2]
    log.close(remove=False)


# --- files in turns


def test_only_batches_that_are_not_folded_are_read_from_both_files(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 7, [])
    for batch in (b"8", b"9"):
        log.append([batch], True)
    assert log.switch()
    assert not log.switch()
    log.append([b"10"], True)
    assert [read(tmp_path, folded) for folded in (7, 8, 9, 10)] == [[b"8", b"9", b"10"], [b"9", b"10"], [b"10"], []]
    log.folded()
    assert log.switch()
    log.append([b"11"], True)
    log.close(remove=False)
    assert [read(tmp_path, folded) for folded in (9, 10, 11)] == [[b"10", b"11"], [b"11"], []]


def test_older_frames_behind_the_last_one_are_not_read(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 0, [])
    for number in range(20):
        log.append([b"%d" % number], True)
    for folded in (20, 21):
        assert log.switch()
        log.append([b"after %d" % folded], True)
        log.folded()
    log.close(remove=False)
    assert read(tmp_path, 21) == [b"after 21"]


def test_a_body_that_looks_like_a_frame_is_none(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path, ends = written(other, [b"one", b"planted"])
    planted = path.read_bytes()[ends[0] : ends[1]]
    path, ends = written(tmp_path, [b"one", b"--" + planted])
    data = path.read_bytes()
    at = data.index(planted)
    # As if the log had been written again up to just there.
    path.write_bytes((data[: ends[0]] + data[at:]).ljust(SIZES.first, b"\0"))
    assert read(tmp_path) == [b"one"]


def test_a_log_that_grows_while_it_is_read_is_not_damaged(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"one"], True)
    taken = []

    def take(data: bytes) -> None:
        taken.append(data)
        log.append([b"two"], True)
        log.append([b"three"], True)

    found = read_log(tmp_path, NAME, 0, take)
    assert (taken, found[0].last) == ([b"one"], 1)
    log.close(remove=True)


@pytest.mark.parametrize("times", [1, 3])
def test_files_grow_with_use_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    monkeypatch.setattr(SIZES, "first", 1000)
    monkeypatch.setattr(SIZES, "most", 3000)
    log = Log(tmp_path, NAME, 0, [])
    for _ in range(2 * times):
        log.append([bytes(log.current.size - 200)], True)
        assert log.switch()
        log.folded()
    assert {path.stat().st_size for path in log_paths(tmp_path)} == {2000 if times == 1 else 3000}
    log.append([bytes(50_000)], True)
    assert log.switch()
    log.folded()
    assert {path.stat().st_size for path in log_paths(tmp_path)} == {2000 if times == 1 else 3000, 3000}
    log.close(remove=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "share"), [(1 << 40, 0.5), (1 << 20, 0.5), (1 << 15, 2.93), (0, 6000.0)])
def test_a_file_may_grow_to_four_times_its_size_while_the_disk_has_sixteen_times_as_much_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, share: float
) -> None:
    monkeypatch.setattr(SIZES, "most", 3000)
    log = Log(tmp_path, NAME, 0, [])
    disk = os.statvfs(tmp_path)
    told = os.statvfs_result((1, 1, disk.f_blocks, disk.f_bfree, free, *tuple(disk)[5:]))
    monkeypatch.setattr(log_module.os, "fstatvfs", lambda _: told)
    assert log.share(6000 - log.current.end) == pytest.approx(share, rel=0.01)
    log.close(remove=True)


# --- damage


def test_a_damaged_byte_is_told_where_batches_follow_and_drops_the_last_batch_otherwise(tmp_path: Path) -> None:
    path, ends = written(tmp_path, BATCHES)
    data = path.read_bytes()
    for at in range(START, ends[-1]):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        if at < ends[-2]:
            with pytest.raises(StoreUnusable, match="damaged"):
                read(tmp_path)
        else:
            assert read(tmp_path) == BATCHES[:-1]


def test_a_damaged_header_is_told(tmp_path: Path) -> None:
    path, _ = written(tmp_path, BATCHES)
    data = path.read_bytes()
    for at in range(36):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(StoreUnusable, match="header is damaged"):
            read(tmp_path)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 0, [])
    first = log.current.path
    log.append([b"one"], True)
    assert log.switch()
    log.append([b"two"], True)
    log.close(remove=False)
    first.unlink()
    with pytest.raises(StoreUnusable, match="frame 1 is missing"):
        read(tmp_path)


@pytest.mark.parametrize("size", [None, 0, 1000, SIZES.first - 1])
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("folded", [0, len(BATCHES)])
def test_a_file_without_its_size_is_told(tmp_path: Path, size: int | None, other: bool, folded: int) -> None:
    path, _ = written(tmp_path, BATCHES)
    short = next(file for file in log_paths(tmp_path) if file != path) if other else path
    assert read(tmp_path, folded) == BATCHES[folded:]
    if size is None:
        short.unlink()
    else:
        os.truncate(short, size)
    with pytest.raises(StoreUnusable, match=f"{short}: damaged: it is missing or cut short"):
        read(tmp_path, folded)


def test_a_missing_file_with_all_that_is_not_folded_is_told(tmp_path: Path) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"folded"], True)
    assert log.switch()
    log.folded()
    log.append([b"not folded"], True)
    log.close(remove=False)
    assert read(tmp_path, 1) == [b"not folded"]
    log.current.path.unlink()
    with pytest.raises(StoreUnusable, match=f"{log.current.path}: damaged: it is missing or cut short"):
        read(tmp_path, 1)


def test_a_crash_while_a_log_is_removed_leaves_one_that_lacks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log(tmp_path, NAME, 0, [])
    log.append([b"folded"], True)
    assert log.switch()
    unlink = Path.unlink
    gone: list[Path] = []

    def unlink_one(path: Path, missing_ok: bool = False) -> None:
        if gone:
            raise PermissionError(errno.EACCES, "Permission denied")
        gone.append(path)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_one)
    log.close(remove=True)
    assert "nothing in it is needed: Permission denied" in caplog.text
    assert sum(path.exists() for path in log_paths(tmp_path)) == 1
    assert read(tmp_path, 1) == []
    Log(tmp_path, NAME, 1, []).close(remove=False)
    assert read(tmp_path, 1) == []


def test_a_damaged_log_is_refused_and_left_as_it_is(stores: Stores, tmp_path: Path) -> None:
    stores.fsync_ms = 0
    store = stores.open()
    for _ in range(3):
        store.put(body=b"x" * 100)
    copy = crash(stores.directory, tmp_path / "copy")
    with (copy / "log.0").open("r+b") as file:
        file.seek(START + 50)
        file.write(b"???")
    before = {name: (copy / name).read_bytes() for name in FILES}
    with pytest.raises(StoreUnusable, match="damaged"):
        Stores(copy, stores.wire).open()
    with pytest.raises(StoreUnusable, match="damaged"):
        backup(copy, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()
    assert {name: (copy / name).read_bytes() for name in FILES} == before


def test_the_log_of_another_journal_is_refused(stores: Stores, tmp_path: Path) -> None:
    store = stores.open()
    store.put()
    copy = crash(stores.directory, tmp_path / "copy")
    backup(stores.directory, tmp_path / "restored")
    for suffix in ("", "-wal"):
        (copy / f"{FILE_NAME}{suffix}").unlink()
    shutil.move(tmp_path / "restored", copy / FILE_NAME)
    with pytest.raises(StoreUnusable, match="another journal"):
        Stores(copy, stores.wire).open()
    for path in log_paths(copy):
        path.unlink()
    restored = Stores(copy, stores.wire)
    assert restored.open().job(1).body == b"x"
    restored.close()
