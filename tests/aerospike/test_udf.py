"""The Lua module: what it sums, and how it gets to where it is needed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from beanspiked.engine.aerospike.segment.codec import Packed, pack
from beanspiked.engine.aerospike.store.aerospike import udf
from beanspiked.engine.aerospike.store.aerospike.udf import ModuleMissing, Sizes
from beanspiked.engine.aerospike.store.formats import NEWEST
from beanspiked.engine.aerospike.store.keys import due_key, lease_key, ready_key
from beanspiked.engine.aerospike.store.seam import BURIED, CLOSED, DEAD, DELAYED, OPEN, READY, Change
from beanspiked.ops import cleanup

if TYPE_CHECKING:
    from collections.abc import Iterator

# A server's modules are one for all: these tests take them away.
pytestmark = pytest.mark.xdist_group("aerospike-modules")

# More than 2**31 in its lower half, as the time of the clock now and then has.
NOW_MS = (400 << 32) + (3 << 30)
OLD = "beanspiked_0123456789ab"
RESERVED = "reserved"


class Segments:
    """A set of its own on a real server."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.set_name = f"t{uuid.uuid4().hex[:6]}_seg"

    def sizes(self, tube: str | None = None, now_ms: int = NOW_MS) -> Sizes:
        return udf.sizes(self.client, "test", self.set_name, tube, now_ms)

    def fill(
        self,
        number: int,
        tube: str,
        jobs: dict[str, list[bytes]],
        due_ms: int = NOW_MS,
        state: int = OPEN,
        form: Any = None,
    ) -> None:
        """Make a segment with these packed jobs by state; delayed ones are due one ms after the other, reserved ones have two holders."""
        keyed = {name: {ready_key(5, 1, slot): job for slot, job in enumerate(packed)} for name, packed in jobs.items()}
        held = keyed.pop(RESERVED, {})
        keyed[DELAYED] = {due_key(due_ms + slot, slot): job for slot, job in enumerate(jobs.get(DELAYED, []))}
        leases: dict[int, dict[bytes, bytes]] = {lease_key(7, 1): {}, lease_key(8, 1): {}, lease_key(9, 1): {}}
        for index, (key, job) in enumerate(held.items()):
            leases[lease_key(7 + index % 2, 1)][key] = job
        bins = {"f": form, "no": number, "tube": tube, "st": state, READY: {}, BURIED: {}, "held": leases, **keyed}
        self.client.put(("test", self.set_name, number), bins)


@pytest.fixture
def segments(client: Any, request: pytest.FixtureRequest) -> Segments:
    build = str(next(iter(client.info_all("build").values()))[1]).strip()
    request.node.user_properties.append(("aerospike", build))
    return Segments(client)


@pytest.fixture
def extra(client: Any) -> Iterator[list[str]]:
    """Names of modules to be taken from the server afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        remove(client, name)


def plain(size: int) -> bytes:
    return pack(Packed(1, 0, 60_000, NOW_MS, b"x" * size))


def give(client: Any, name: str, source: bytes = b"function nothing() end\n") -> None:
    """Register a module under a name of our choice."""
    content = base64.b64encode(source).decode()
    udf._command(client, f"udf-put:filename={name}.lua;content={content};content-len={len(content)};udf-type=LUA;")
    udf._wait(client, lambda files: f"{name}.lua" in files, name)


def remove(client: Any, name: str) -> None:
    udf._command(client, f"udf-remove:filename={name}.lua;")
    udf._wait(client, lambda files: f"{name}.lua" not in files, name)


def has(client: Any, name: str) -> bool:
    return all(f"{name}.lua" in files for files in udf._listed(client))


# --- sums


def test_no_segments_have_no_jobs(segments: Segments) -> None:
    assert segments.sizes() == Sizes()
    assert segments.sizes("tube") == Sizes()


def test_jobs_are_counted_by_state_and_their_bodies_summed(segments: Segments) -> None:
    outside = pack(Packed(1, 0, 0, 0, b"", body_number=3, stored_size=3_000_000_000, skipped=True))
    squeezed = pack(Packed(1, 0, 0, 0, b"z" * 30, raw_size=4_000_000_000, reserves=2, metadata="é" * 300, reason="r"))
    jobs = {
        READY: [plain(10), plain(0)],
        DELAYED: [plain(1), plain(2), plain(3)],
        BURIED: [outside],
        RESERVED: [squeezed, plain(5), plain(6), plain(7)],
    }
    segments.fill(1, "tube", jobs, due_ms=NOW_MS - 1)
    raw = 10 + 1 + 2 + 3 + 5 + 6 + 7
    expected = Sizes(
        ready=4,
        delayed=1,
        reserved=4,
        buried=1,
        job_size=raw + 7_000_000_000,
        used_size=raw + 30 + 3_000_000_000,
        skipped_size=3_000_000_000,
    )
    assert segments.sizes() == segments.sizes("tube") == expected
    assert segments.sizes("tub") == segments.sizes("tube2") == Sizes()


@pytest.mark.parametrize("due_ms", [1, 2**31, 2**32 - 1, 2**32, NOW_MS, 2**48 - 1])
def test_a_delayed_job_is_ready_from_the_millisecond_in_which_it_is_due(segments: Segments, due_ms: int) -> None:
    segments.fill(1, "tube", {DELAYED: [plain(1)]}, due_ms)
    found = [segments.sizes(now_ms=due_ms + later) for later in (-1, 0, 1)]
    assert [(sizes.ready, sizes.delayed) for sizes in found] == [(0, 1), (1, 0), (1, 0)]


def test_a_dead_segment_has_no_jobs(segments: Segments) -> None:
    segments.fill(1, "tube", {READY: [plain(10)], RESERVED: [plain(5)]}, state=DEAD)
    segments.fill(2, "tube", {READY: [plain(3)]}, state=CLOSED)
    assert segments.sizes() == Sizes(ready=1, job_size=3, used_size=3)


def test_a_job_that_cannot_be_read_counts_by_its_state_only(segments: Segments) -> None:
    whole = pack(Packed(1, 2, 3, 4, b"", reserves=1, raw_size=9, metadata="metadata", reason="reason"))
    placed = pack(Packed(1, 2, 3, 4, b"", reserves=1, body_number=2, stored_size=7))
    cut = [whole[:size] for size in range(len(whole))]
    segments.fill(1, "tube", {READY: cut, BURIED: [placed[:size] for size in range(len(placed))], RESERVED: [whole]})
    # Without a flag of its own nothing can be missing but the head.
    assert segments.sizes() == Sizes(
        ready=len(cut), buried=len(placed), reserved=1, job_size=9, damaged=len(cut) + len(placed)
    )


@pytest.mark.parametrize("first_byte", [0x40, 0x42, 0x80, 0xFF])
def test_a_job_of_a_later_format_counts_by_its_state_only_and_is_not_damaged(
    segments: Segments, first_byte: int
) -> None:
    segments.fill(1, "tube", {READY: [plain(10), bytes([first_byte]) + plain(20)[1:]]}, form=NEWEST)
    assert segments.sizes() == Sizes(ready=2, job_size=10, used_size=10)


@pytest.mark.parametrize("form", [NEWEST + 1, "text"])
def test_a_segment_of_a_newer_format_is_not_summed(segments: Segments, form: Any) -> None:
    segments.fill(1, "tube", {READY: [plain(10)]}, form=form)
    segments.fill(2, "tube", {READY: [plain(3)]}, form=NEWEST)
    assert segments.sizes() == Sizes(ready=1, job_size=3, used_size=3)


def test_the_store_writes_what_the_module_reads(client: Any) -> None:
    from beanspiked.engine.aerospike.store.aerospike.adapter import AerospikeStore

    prefix = f"t{uuid.uuid4().hex[:6]}_"
    store = AerospikeStore(client, "test", prefix)
    puts = {
        READY: {ready_key(5, 1, 1): plain(1), ready_key(6, 1, 2): plain(2), ready_key(7, 1, 3): plain(4)},
        DELAYED: {due_key(NOW_MS, 4): plain(8), due_key(NOW_MS + 1, 5): plain(16), due_key(NOW_MS + 2, 6): plain(32)},
        BURIED: {due_key(1, 7): plain(64)},
    }

    async def make() -> None:
        await store.create(1, "tube", lease_key(7, 1))
        await store.apply(1, lease_key(7, 1), Change(last_slot=7, puts=puts))
        await store.apply(1, lease_key(7, 1), Change(take=1))

    asyncio.run(make())
    store.caller.close()
    expected = Sizes(ready=3, delayed=2, reserved=1, buried=1, job_size=127, used_size=127)
    assert udf.sizes(client, "test", f"{prefix}seg", "tube", NOW_MS) == expected


class Model:
    """Random segments, and what their sums must be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.jobs: list[tuple[str, str, Packed, int]] = []

    def job(self) -> Packed:
        chance = self.random.random
        outside = chance() < 0.2
        body = b"" if outside else self.random.randbytes(self.random.randrange(200))
        return Packed(
            self.random.randrange(2**32),
            0,
            60_000,
            NOW_MS,
            body,
            reserves=self.random.randrange(3) if chance() < 0.5 else 0,
            raw_size=self.random.randrange(2**32) if chance() < 0.3 else -1,
            body_number=self.random.randrange(1, 2**32) if outside else 0,
            stored_size=self.random.randrange(2**32),
            skipped=chance() < 0.3,
            failed=chance() < 0.2,
            retries=self.random.randrange(3) if chance() < 0.2 else 0,
            metadata="m" * self.random.randrange(300) if chance() < 0.2 else "",
            reason="é" * self.random.randrange(300) if chance() < 0.2 else "",
        )

    def segment(self, tube: str) -> tuple[dict[str, list[bytes]], int]:
        """Return the jobs of a new segment by state, and when the first delayed one is due."""
        due_ms = NOW_MS + self.random.randrange(-10, 10)
        jobs: dict[str, list[bytes]] = {}
        for state in (READY, DELAYED, BURIED, RESERVED):
            for index in range(self.random.randrange(8)):
                job = self.job()
                jobs.setdefault(state, []).append(pack(job))
                self.jobs.append((tube, state, job, due_ms + index if state == DELAYED else 0))
        return jobs, due_ms

    def sizes(self, tube: str | None, now_ms: int) -> Sizes:
        counts = dict.fromkeys((READY, DELAYED, BURIED, RESERVED), 0)
        raw = used = skipped = 0
        for name, state, job, due_ms in self.jobs:
            if tube in (None, name):
                counts[READY if state == DELAYED and due_ms <= now_ms else state] += 1
                raw += job.stored_size if job.raw_size < 0 else job.raw_size
                used += job.stored_size
                skipped += job.stored_size if job.skipped else 0
        return Sizes(**counts, job_size=raw, used_size=used, skipped_size=skipped)


@pytest.mark.parametrize("seed", range(3))
def test_random_segments_are_summed_as_a_model_sums_them(segments: Segments, seed: int) -> None:
    model = Model(seed)
    for number in range(1, 60):
        tube = f"tube{number % 4}"
        segments.fill(number, tube, *model.segment(tube))
    for tube in (None, "tube0", "tube1", "tube2", "tube3", "other"):
        for now_ms in (NOW_MS - 20, NOW_MS, NOW_MS + 20):
            assert segments.sizes(tube, now_ms) == model.sizes(tube, now_ms)


# --- where the module is


def test_the_client_finds_the_module_under_the_name_of_its_content() -> None:
    source = udf.module_source()
    name = udf.module_name(source)
    assert name == f"beanspiked_{hashlib.sha256(source).hexdigest()[:12]}"
    assert Path(udf.module_directory(), f"{name}.lua").read_bytes() == source
    assert udf.module_name(source + b"\n") != name


def test_a_module_is_registered_where_it_is_missing_and_only_there(client: Any) -> None:
    name = udf.register(client)
    remove(client, name)
    assert not has(client, name)
    assert udf.register(client) == name
    assert has(client, name)
    commands = Recording(client)
    assert udf.register(commands) == name
    assert commands.commands == []


def test_a_missing_module_is_registered_again_by_the_call_that_needs_it(segments: Segments) -> None:
    client = segments.client
    segments.fill(1, "tube", {READY: [plain(10)]})
    for _ in range(5):
        remove(client, udf.module_name(udf.module_source()))
        assert segments.sizes() == Sizes(ready=1, job_size=10, used_size=10)
    assert has(client, udf.module_name(udf.module_source()))


def test_many_may_find_the_module_missing_at_once(segments: Segments) -> None:
    segments.fill(1, "tube", {READY: [plain(10)]})
    remove(segments.client, udf.module_name(udf.module_source()))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: segments.sizes(), range(8))) == {Sizes(ready=1, job_size=10, used_size=10)}


def test_a_module_that_nodes_refuse_is_told(client: Any) -> None:
    with pytest.raises(ModuleMissing, match="compile_error"):
        udf._register(client, b"this is not Lua")


# A process of its own, since a process looks for modules in one directory only, and with a version of its own.
CHILD = """
import sys
import aerospike
from pathlib import Path
from beanspiked.engine.aerospike.store.aerospike import udf
host, port, set_name, directory, source = sys.argv[1:]
config = {"hosts": [(host, int(port))]}
if directory:
    config["lua"] = {"user_path": directory}
client = aerospike.client(config).connect()
try:
    print(udf._sizes(client, Path(source).read_bytes(), ("test", set_name), None, 0))
except udf.ModuleMissing as error:
    print("ModuleMissing:", error)
client.close()
"""


def in_another_process(
    segments: Segments, address: tuple[str, int], folder: Path, source: bytes, registered: bool = True
) -> str:
    """Sum the segments with another version of the module, or one that its client does not find."""
    path = folder / f"{udf.module_name(source)}.lua"
    path.write_bytes(source)
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            CHILD,
            address[0],
            str(address[1]),
            segments.set_name,
            str(folder) if registered else "",
            str(path),
        ],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # The client's own library writes a module that it does not find to the standard output, too.
    return found.stdout.splitlines()[-1]


def test_two_versions_work_side_by_side(
    segments: Segments, address: tuple[str, int], tmp_path: Path, extra: list[str]
) -> None:
    source = udf.module_source()
    other = source.replace(b"buried = buried + 1", b"buried = buried + 100")
    assert other != source
    extra.append(udf.module_name(other))
    folder = tmp_path / "modules"
    folder.mkdir()
    segments.fill(1, "tube", {BURIED: [plain(10), plain(1)]})
    for _ in range(3):
        assert segments.sizes().buried == 2
        assert "buried=200," in in_another_process(segments, address, folder, other)
        remove(segments.client, udf.module_name(other))
    assert has(segments.client, udf.module_name(source))


def test_a_module_that_this_process_does_not_find_is_told(
    segments: Segments, address: tuple[str, int], tmp_path: Path
) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    segments.fill(1, "tube", {READY: [plain(10)]})
    told = in_another_process(segments, address, folder, udf.module_source(), registered=False)
    assert told.startswith("ModuleMissing:")
    assert "lua.user_path" in told


def test_a_module_that_fails_is_told(
    segments: Segments, address: tuple[str, int], tmp_path: Path, extra: list[str]
) -> None:
    failing = udf.module_source().replace(b"buried = buried + 1", b"error('on purpose')")
    extra.append(udf.module_name(failing))
    folder = tmp_path / "modules"
    folder.mkdir()
    segments.fill(1, "tube", {BURIED: [plain(10)]})
    told = in_another_process(segments, address, folder, failing)
    assert told.startswith("ModuleMissing:")
    assert "on purpose" in told


class Recording:
    """A client that passes everything on and keeps the commands."""

    def __init__(self, client: Any) -> None:
        self.commands: list[str] = []
        self._client = client

    def info_random_node(self, command: str, policy: dict[str, int]) -> str:
        self.commands.append(command.partition(":")[0])
        answer: str = self._client.info_random_node(command, policy)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def test_a_module_that_is_removed_again_and_again_is_registered_once_a_call(segments: Segments) -> None:
    name = udf.module_name(udf.module_source())
    segments.fill(1, "tube", {READY: [plain(10)]})

    class Sabotaged(Recording):
        def query(self, *where: str) -> Any:
            remove(segments.client, name)
            return segments.client.query(*where)

    client = Sabotaged(segments.client)
    with pytest.raises(ModuleMissing, match=name):
        udf.sizes(client, "test", segments.set_name, None, NOW_MS)
    assert client.commands == ["udf-put"]


class Silent:
    """A cluster in which a module reaches one of two nodes only."""

    def __init__(self) -> None:
        self.files = ""

    def info_all(self, _command: str, _policy: dict[str, int]) -> dict[str, tuple[None, str]]:
        return {"A": (None, self.files), "B": (None, "\n")}

    def info_random_node(self, command: str, _policy: dict[str, int]) -> str:
        self.files = f"{command.removeprefix('udf-put:').partition(';')[0]},hash=1,type=LUA;\n"
        return f"{command}\tok\n"


def test_a_module_that_does_not_reach_every_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udf, "PATIENCE_S", 0.1)
    with pytest.raises(ModuleMissing, match="every node"):
        udf.register(Silent())


# --- clean-up


def test_modules_of_other_versions_are_removed_and_nothing_else(client: Any, extra: list[str]) -> None:
    current = udf.register(client)
    others = ["foreign", "beanspiked_mine", "xbeanspiked_0123456789ab", "beanspiked_0123456789abc"]
    for name in others:
        give(client, name)
        extra.append(name)
    old = [OLD, "beanspiked_ffffffffffff"]
    for name in old:
        give(client, name)
    assert udf.old_modules(client) == old
    assert udf.remove_old(client) == old
    assert udf.old_modules(client) == udf.remove_old(client) == []
    assert all(has(client, name) for name in [current, *others])


def test_the_command_cleans_up_and_says_so(
    client: Any, address: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    give(client, OLD)
    url = f"aerospike://{address[0]}:{address[1]}/test"
    assert cleanup.main([url]) == 0
    assert capsys.readouterr().out == f"removed the Lua module {OLD}\n"
    assert cleanup.main([url]) == 0
    assert capsys.readouterr().out == "there is no Lua module of another version\n"


@pytest.mark.parametrize("words", [[], ["aerospike://127.0.0.1/test", "again"], ["sqlite:jobs"]])
def test_the_command_refuses_other_words(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanup.main(words) == 5
    assert capsys.readouterr().err.startswith("beanspiked: ")


def test_the_command_says_that_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanup.main(["aerospike://me:secret@127.0.0.1:9/test"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("beanspiked: ")
    assert told.endswith("cannot connect to 127.0.0.1:9: connection refused\n")
    assert "secret" not in told


def test_the_command_needs_one_host_that_answers(
    client: Any,  # noqa: ARG001 - a server that answers
    address: tuple[str, int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cleanup.main([f"aerospike://127.0.0.1:9,{address[0]}:{address[1]}/test"]) == 0
    assert "Lua module" in capsys.readouterr().out


def test_the_command_finds_the_cluster_in_the_environment(
    client: Any,
    address: tuple[str, int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(client, OLD)
    monkeypatch.setenv("BEANSPIKED_STORE", f"aerospike://{address[0]}:{address[1]}/test")
    assert cleanup.main([]) == 0
    assert capsys.readouterr().out == f"removed the Lua module {OLD}\n"
    monkeypatch.setenv("BEANSPIKED_STORE", "memory:")
    assert cleanup.main([]) == 5
    assert "this command needs aerospike:" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_command_prints_its_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cleanup.main([option]) == 0
    assert capsys.readouterr().out.startswith("Usage: beanspiked cleanup")
