"""Runs the benchmark: rounds, alternating between two servers, Ctrl-C, exit status."""
# ruff: noqa: T201 - printing the report is what this command is for

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import sys

import uvloop

from beanspiked.bench.load import BenchError, Load, ProgressHook, filling, remove_jobs
from beanspiked.bench.options import Options, parse_options
from beanspiked.bench.report import GENERATOR_LIMIT, Report, ServerResult
from beanspiked.client.address import Address

GRACE_SECONDS = 2.0
"""After Ctrl-C, jobs already begun have this many seconds to finish; a second Ctrl-C ends at once."""

EXIT_FAILED = 1
EXIT_INTERRUPTED = 128 + signal.SIGINT


class _Progress:
    """A progress line on a terminal's standard error; elsewhere it prints nothing."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = (0, 0.0)

    def hook(self, what: str) -> ProgressHook | None:
        """Return the function that shows the progress of the run `what`."""
        if not self._shown:
            return None
        self._last = (0, 0.0)

        def show(jobs: int, seconds: float) -> None:
            last_jobs, last_seconds = self._last
            self._last = (jobs, seconds)
            speed = (jobs - last_jobs) / max(seconds - last_seconds, 1e-9)
            self._write(f"{what}  {seconds:.1f} s  {jobs:,} jobs  {speed:,.0f} jobs/s")

        return show

    def clear(self) -> None:
        """Clear the line."""
        if self._shown:
            self._write("")

    def _write(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{text[: columns - 1]}", end="", file=sys.stderr, flush=True)


class _Session:
    """All runs of one call, in order."""

    def __init__(self, options: Options) -> None:
        addresses = [options.server] if options.versus is None else [options.server, options.versus]
        self.report = Report(options, [ServerResult(str(address)) for address in addresses])
        self._options = options
        self._turns = list(zip(addresses, self.report.servers, strict=True))
        self._progress = _Progress()
        self._load: Load | None = None
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Measure; Ctrl-C ends it early.

        Raises:
            BenchError: A run failed.

        """
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            for number in range(self._options.rounds):
                # The order changes each round, so that neither server always runs first, on a colder machine.
                for address, result in self._turns[:: -1 if number % 2 else 1]:
                    if not self.report.interrupted:
                        await self._turn(number, address, result)
        finally:
            self._progress.clear()
            loop.remove_signal_handler(signal.SIGINT)
        self._note()

    async def _turn(self, number: int, address: Address, result: ServerResult) -> None:
        options = self._options
        where = f"{address}  round {number + 1}/{options.rounds}"
        clean = False
        loads: list[Load] = []
        try:
            if options.mode == "drain" and options.own_tubes:
                loads.append(Load(address, filling(options), self._progress.hook(f"{where}  filling")))
                await self._guarded(loads[-1])
            if not self.report.interrupted:
                loads.append(load := Load(address, options, self._progress.hook(where)))
                clean = await self._guarded(load) and not self.report.interrupted
                if load.started:
                    result.rounds.append(load.result())
        except BenchError as exc:
            left = await self._clean(address, loads)
            raise BenchError(f"{exc}{left and '; ' + left}") from exc
        if not clean and options.mode != "put" and (left := await self._clean(address, loads)):
            self.report.notes.append(left)

    async def _clean(self, address: Address, loads: list[Load]) -> str:
        """Delete the jobs of a run that was cut short; return a text about those that stay."""
        options = self._options
        if options.mode == "put":
            some = self.report.measured() or any(load.started for load in loads)
            return f"the jobs that were put before stay in {', '.join(options.tubes)}" if some else ""
        if not (options.own_tubes and any(load.started for load in loads)):
            return ""
        removed = False
        with contextlib.suppress(asyncio.CancelledError):
            removed = await remove_jobs(address, options)
        return "" if removed else f"jobs may be left on {address} in {', '.join(options.tubes)}"

    async def _guarded(self, load: Load) -> bool:
        """Run `load`; return whether it ended by itself."""
        self._load = load
        try:
            await load.run()
        except asyncio.CancelledError:
            assert self._task is not None
            self._task.uncancel()
            return False
        finally:
            self._load = None
        return True

    def _interrupt(self) -> None:
        again = self.report.interrupted
        self.report.interrupted = True
        assert self._task is not None
        if again or self._load is None or not self._load.started:
            self._task.cancel()
        else:
            self._load.stop()
            asyncio.get_running_loop().call_later(GRACE_SECONDS, self._abandon, self._load)

    def _abandon(self, load: Load) -> None:
        if self._load is load and self._task is not None:
            self._task.cancel()

    def _note(self) -> None:
        options, notes = self._options, self.report.notes
        if self.report.interrupted:
            notes.append("interrupted" + (": these are the figures so far" if self.report.measured() else ""))
        for server in self.report.measured():
            if server.generator_bound:
                notes.append(
                    f"{server.server}: the load generator was the bottleneck ({server.generator_cpu:.0%} of a processor,"
                    f" the limit is {GENERATOR_LIMIT:.0%}); the server may be faster than this"
                )
            if any(result.ran_empty for result in server.rounds) and options.jobs is not None:
                notes.append(f"{server.server}: the tubes had fewer jobs than the drain asked for")
            if options.mode == "put":
                tube = options.tubes[0] if len(options.tubes) == 1 else options.tubes[0].rpartition("-")[0]
                tubes = "" if len(options.tubes) == 1 else f" --tubes {len(options.tubes)}"
                notes.append(
                    f"{sum(result.jobs for result in server.rounds):,} jobs stay on {server.server}; delete them with:"
                    f" beanspiked bench {server.server} --mode drain --tube {tube}{tubes}"
                )


def main(argv: list[str]) -> int:
    """Run `beanspiked bench` with `argv`, the arguments after that word.

    Returns:
        The exit status: 0 measured, 1 failed, 2 wrong usage, 130 interrupted.

    """
    try:
        options = parse_options(argv)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(_measure(options))
        print(json.dumps(report.document(), indent=2) if options.json else report.table())
    except SystemExit as stop:  # argparse has printed the help or the error.
        return int(stop.code or 0)
    except BenchError as exc:
        print(f"beanspiked bench: {exc}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:  # Ctrl-C came before or after the session, which handles it itself.
        print("beanspiked bench: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_INTERRUPTED if report.interrupted else 0


async def _measure(options: Options) -> Report:
    session = _Session(options)
    await session.run()
    return session.report
