"""Compiles the core with mypyc where a C compiler is found; without one the same source runs as it is, and mypyc is not fetched.

`BEANSPIKED_PURE=1` builds without compiling, `BEANSPIKED_PURE=0` makes a failure to compile an error. `BEANSPIKED_GROUPS=embedded`
leaves the shared engine, which is most of what there is to compile, as it is. `BEANSPIKED_OPT_LEVEL` is the C compiler's -O.
"""

import hashlib
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# What every command and every job passes through. Third-party imports stay outside.
EMBEDDED = [
    "engine/compression.py",
    "engine/contract.py",
    "engine/errors.py",
    "engine/filters.py",
    "engine/histogram.py",
    "engine/jobs.py",
    "engine/later.py",
    "engine/memory.py",
    "engine/queue.py",
    "engine/timers.py",
    "engine/embedded/bulk.py",
    "engine/embedded/changes.py",
    "engine/embedded/engine.py",
    "engine/embedded/frames.py",
    "engine/embedded/journal.py",
    "engine/embedded/keeper.py",
    "engine/embedded/lists.py",
    "engine/embedded/loading.py",
    "engine/embedded/log.py",
    "engine/embedded/looks.py",
    "engine/embedded/records.py",
    "engine/embedded/rendezvous.py",
    "engine/embedded/scan.py",
    "engine/embedded/slices.py",
    "engine/embedded/table.py",
    "engine/embedded/tubes.py",
    "engine/embedded/write.py",
]
SERVER = [
    "protocol/commands.py",
    "protocol/lines.py",
    "protocol/parser.py",
    "protocol/replies.py",
    "protocol/yaml.py",
    "server/broker.py",
    "server/busy_poll.py",
    "server/clock.py",
    "server/connection.py",
    "server/contract.py",
    "server/failures.py",
    "server/flow.py",
    "server/gate.py",
    "server/holds.py",
    "server/loop.py",
    "server/pending_replies.py",
    "server/pending_reserve.py",
    "server/poller.py",
    "server/reply_queue.py",
    "server/session.py",
    "server/sockets.py",
    "server/times.py",
    "server/tube_choice.py",
]
SHARED = [
    "engine/aerospike/cluster/agreement.py",
    "engine/aerospike/cluster/announcement.py",
    "engine/aerospike/cluster/burial.py",
    "engine/aerospike/cluster/chores.py",
    "engine/aerospike/cluster/clock.py",
    "engine/aerospike/cluster/ends.py",
    "engine/aerospike/cluster/links.py",
    "engine/aerospike/cluster/listener.py",
    "engine/aerospike/cluster/membership.py",
    "engine/aerospike/cluster/mesh.py",
    "engine/aerospike/cluster/news.py",
    "engine/aerospike/cluster/session.py",
    "engine/aerospike/cluster/telling.py",
    "engine/aerospike/cluster/usage.py",
    "engine/aerospike/commands.py",
    "engine/aerospike/engine.py",
    "engine/aerospike/queries/asking.py",
    "engine/aerospike/queries/bulk.py",
    "engine/aerospike/queries/census.py",
    "engine/aerospike/queries/changes.py",
    "engine/aerospike/queries/choosing.py",
    "engine/aerospike/queries/finder.py",
    "engine/aerospike/queries/kicks.py",
    "engine/aerospike/queries/listing.py",
    "engine/aerospike/queries/moving.py",
    "engine/aerospike/queries/shifting.py",
    "engine/aerospike/segment/batch.py",
    "engine/aerospike/segment/bodies.py",
    "engine/aerospike/segment/codec.py",
    "engine/aerospike/segment/commit.py",
    "engine/aerospike/segment/committer.py",
    "engine/aerospike/segment/forecast.py",
    "engine/aerospike/segment/handover.py",
    "engine/aerospike/segment/inbox.py",
    "engine/aerospike/segment/jobs.py",
    "engine/aerospike/segment/step.py",
    "engine/aerospike/segment/surroundings.py",
    "engine/aerospike/segment/tries.py",
    "engine/aerospike/segment/view.py",
    "engine/aerospike/store/aerospike/changes.py",
    "engine/aerospike/store/aerospike/conditions.py",
    "engine/aerospike/store/aerospike/heads.py",
    "engine/aerospike/store/aerospike/together.py",
    "engine/aerospike/store/directory.py",
    "engine/aerospike/store/entries.py",
    "engine/aerospike/store/fields.py",
    "engine/aerospike/store/formats.py",
    "engine/aerospike/store/keys.py",
    "engine/aerospike/store/lister.py",
    "engine/aerospike/store/pairs.py",
    "engine/aerospike/store/request.py",
    "engine/aerospike/store/tasks.py",
    "engine/aerospike/tubes/agenda.py",
    "engine/aerospike/tubes/announcing.py",
    "engine/aerospike/tubes/around.py",
    "engine/aerospike/tubes/due.py",
    "engine/aerospike/tubes/heads.py",
    "engine/aerospike/tubes/forgetting.py",
    "engine/aerospike/tubes/hearing.py",
    "engine/aerospike/tubes/held.py",
    "engine/aerospike/tubes/leftovers.py",
    "engine/aerospike/tubes/lifecycle.py",
    "engine/aerospike/tubes/notes.py",
    "engine/aerospike/tubes/pair_ends.py",
    "engine/aerospike/tubes/puts.py",
    "engine/aerospike/tubes/ranking.py",
    "engine/aerospike/tubes/registry.py",
    "engine/aerospike/tubes/retirement.py",
    "engine/aerospike/tubes/room.py",
    "engine/aerospike/tubes/session_events.py",
    "engine/aerospike/tubes/takes.py",
    "engine/aerospike/tubes/tube.py",
    "engine/aerospike/tubes/view.py",
]
# Commands that build. Others only tell about the package, and mypyc takes ten seconds to come as far as C.
BUILD = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"}
PURE = os.environ.get("BEANSPIKED_PURE", "")
# What knows a segment, and no tube: half of the shared engine.
BELOW_TUBES = ("cluster", "segment", "store")
# Each becomes a C file of its own, so that they are compiled side by side. No group imports one that comes after it.
GROUPS = {
    "embedded": EMBEDDED,
    "server": SERVER,
    "segments": [path for path in SHARED if path.split("/")[2] in BELOW_TUBES],
    "tubes": [path for path in SHARED if path.split("/")[2] not in BELOW_TUBES],
}
# What `BEANSPIKED_GROUPS` may name.
WHOLES = {"embedded": ("embedded", "server"), "shared": ("segments", "tubes")}
ASKED = os.environ.get("BEANSPIKED_GROUPS", "embedded,shared").split(",")
if UNKNOWN := sorted(set(ASKED) - WHOLES.keys()):
    sys.exit(f"BEANSPIKED_GROUPS: {', '.join(UNKNOWN)} is not one of {', '.join(WHOLES)}")
CHOSEN = [group for whole in ASKED for group in WHOLES[whole]]


class BuildOrGoWithout(build_ext):
    """Builds the extension modules, or none of them where that is impossible."""

    def finalize_options(self) -> None:
        """Build on all processors: each group is one large file."""
        super().finalize_options()
        if self.parallel is None:
            self.parallel = os.cpu_count()

    def run(self) -> None:
        """Build; on failure say so and leave nothing half built in the wheel."""
        try:
            super().run()
        except Exception as error:
            if PURE == "0":
                raise
            print(f"beanspiked: not compiled ({error}); the pure Python core will be used", file=sys.stderr)
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


class BuildWithLua(build_py):
    """Packs the Lua module under the name that it has in a cluster, which tells its content."""

    def run(self) -> None:
        """Build; an installation that leads into the checkout finds the module there."""
        super().run()
        if self.editable_mode:
            return
        source = Path("lua/beanspiked.lua").read_bytes()
        folder = Path(self.build_lib, "beanspiked", "lua")
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.lua"):
            old.unlink()
        (folder / f"beanspiked_{hashlib.sha256(source).hexdigest()[:12]}.lua").write_bytes(source)


def obstacle() -> str:
    """Return why nothing can be compiled here, or nothing."""
    if PURE == "1":
        return "BEANSPIKED_PURE=1"
    if sys.implementation.name != "cpython":
        return f"mypyc compiles for CPython only, not for {sys.implementation.name}"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler})"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.exists() else f"Python's headers are missing ({header})"


def needs() -> list[str]:
    """Return what a build needs besides what pyproject.toml says; pip asks for it (`get_requires_for_build_wheel`)."""
    if obstacle() and PURE != "0":
        return []
    try:
        import tomllib
    except ModuleNotFoundError:
        # Python is older than 3.11, and pip says so once it has been told the package's metadata.
        return []
    return tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]["compile"]


def extensions() -> list:
    """Return the extension modules, or none where mypyc cannot make them.

    All that mypyc makes is visible to other libraries, which might replace it: so nothing could be inlined, and each call would go
    through a table. Hidden, 50 x 16 in memory gained one to four hundredths. What Python loads a module by stays visible.
    """
    if BUILD.isdisjoint(sys.argv):
        return []
    why = obstacle()
    if why and PURE != "0":
        print(f"beanspiked: not compiled ({why}); the pure Python core will be used", file=sys.stderr)
        return []
    try:
        from mypyc.build import mypycify

        groups = [([f"beanspiked/{path}" for path in GROUPS[name]], f"beanspiked_{name}") for name in CHOSEN]
        paths = [path for paths, _ in groups for path in paths]
        # Over what an earlier run of mypy has left in its cache mypyc stumbles: it gets one of its own.
        with tempfile.TemporaryDirectory() as cache:
            modules = mypycify(
                ["--strict", "--ignore-missing-imports", f"--cache-dir={cache}", *paths],
                opt_level=os.environ.get("BEANSPIKED_OPT_LEVEL", "1"),
                debug_level="0",
                separate=groups,
            )
        for module in modules:
            # Python's own -Wall takes half of the compiler's time, and nobody reads warnings about generated C.
            module.extra_compile_args = [*module.extra_compile_args, "-fvisibility=hidden", "-Wno-all"]
        if "server" in CHOSEN:
            modules.append(Extension("beanspiked.server._epoll", ["beanspiked/server/_epoll.c"]))
        # mypyc has put the groups in the order of their imports. The last takes longest, and is compiled first.
        return modules[::-1]
    except (Exception, SystemExit) as error:
        if PURE == "0":
            raise
        print(f"beanspiked: not compiled ({error}); the pure Python core will be used", file=sys.stderr)
        return []


if __name__ == "__main__":
    setup(
        setup_requires=needs(),
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildOrGoWithout, "build_py": BuildWithLua},
    )
