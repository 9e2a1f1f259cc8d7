"""Put the laboratory on the import path; servers that live as long as one test."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from depth import absent
from suite import either_io

sys.path.insert(0, str(Path(__file__).parent))

from lab.disk import SmallDisk
from lab.process import Servers


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Starts servers for this test alone; a parameter says how they hear their sockets."""
    started = Servers(either_io(getattr(request, "param", "auto")))
    yield started
    started.close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """An empty directory for a journal."""
    directory = tmp_path / "journal"
    directory.mkdir()
    return directory


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="bs.") as path:
        yield Path(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Makes file systems of a given number of megabytes, which only the servers started on them see."""
    made: list[SmallDisk] = []

    def make(megabytes: int) -> SmallDisk:
        directory = tmp_path / f"disk{len(made)}"
        directory.mkdir()
        disk = SmallDisk.make(directory, megabytes)
        if disk is None:
            absent("this user may not mount a small file system in a namespace of its own")
        made.append(disk)
        return disk

    yield make
    for disk in made:
        disk.close()


@pytest.fixture
def strace() -> str:
    return shutil.which("strace") or absent("strace is not installed")


@pytest.fixture
def compiler() -> str:
    return shutil.which("cc") or absent("cc is not installed")


@pytest.fixture
def faketime() -> str:
    """The library that shows a process another time."""
    found = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), *Path("/usr/lib").glob("faketime/libfaketime.so.1")]
    return str(found[0]) if found else absent("libfaketime is not installed")
