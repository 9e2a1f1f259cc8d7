"""Workers, handlers and servers of a program that forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from depth import full_depth
from forking import run

if TYPE_CHECKING:
    from stores import Stores

pytestmark = full_depth


def test_a_handler_that_forks_leaves_its_jobs_to_the_parents_worker(stores: Stores) -> None:
    run(
        """
        pids, done = [], []

        async def handle(task, job):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                return
            pids.append(pid)
            await asyncio.sleep(0.05)
            done.append(task)
            if len(done) == 3:
                asyncio.get_running_loop().call_later(0.2, worker.stop)

        async def main():
            global worker
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                for number in range(3):
                    await tube.put(b"%d" % number, ttr=60)
                worker = beanspiked.Worker(tube, handle, concurrency=2)
                await worker.run()
                assert (await tube.stats()).jobs == 0

        try:
            asyncio.run(main())
        except beanspiked.ConnForked as error:
            # Each child's copy of the worker ends.
            os._exit(0 if error.owner == me and os.getpid() != me and not done[3:] else 1)
        assert sorted(done) == [b"0", b"1", b"2"]
        for pid in pids:
            ended(pid)
        """,
        stores,
    )


def test_a_handler_that_forks_does_not_fail_in_the_child() -> None:
    run(
        """
        import logging

        class Heard(logging.Handler):
            def emit(self, record):
                heard.append(record.getMessage())

        heard = []
        logging.getLogger("beanspiked").addHandler(Heard())

        async def handle(task, job):
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                await job.release()
            ended(pid)
            worker.stop()

        async def main():
            global worker
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                worker = beanspiked.Worker(tube, handle)
                await worker.run()

        try:
            asyncio.run(main())
        except beanspiked.ConnForked:
            os._exit(len(heard))
        """
    )


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signal_for_a_child_ends_the_child_and_not_its_parents_worker(number: str, loop: str) -> None:
    run(
        f"""
        import {loop}

        async def handle(task, job):
            pid = os.fork()
            if pid == 0:
                try:
                    time.sleep(10)
                finally:
                    os._exit(3)
            await asyncio.sleep(0.1)
            os.kill(pid, signal.{number})
            status = os.waitpid(pid, 0)[1]
            assert os.waitstatus_to_exitcode(status) in (-signal.{number}, 3), status
            await asyncio.sleep(0.1)
            fine.append(job.held)
            worker.stop()

        async def main():
            global worker
            async with connect(url) as conn:
                tube = conn.use(tube_name)
                await tube.put(b"x", ttr=60)
                worker = beanspiked.Worker(tube, handle)
                began = time.monotonic()
                await worker.run()
                assert time.monotonic() - began < 5

        fine = []
        with asyncio.Runner(loop_factory={loop}.new_event_loop) as runner:
            runner.run(main())
        assert fine == [True]
        """
    )


def test_clients_see_their_server_hang_up_though_a_child_lives_on() -> None:
    run(
        """
        reading, writing = os.pipe()
        conn = blocking.Conn(connect(url))
        [address] = conn.serve("127.0.0.1:0")
        host, port = address.split(":")
        client = socket.create_connection((host, int(port)), timeout=5)
        client.sendall(b"list-tube-used\\r\\n")
        assert client.recv(100) == b"USING default\\r\\n"

        def child():
            os.close(writing)
            os.read(reading, 1)

        pid = forked(child)
        client.sendall(b"list-tube-used\\r\\n")
        assert client.recv(100) == b"USING default\\r\\n"
        conn.close()
        assert client.recv(100) == b""
        try:
            socket.create_connection((host, int(port)), timeout=5)
        except ConnectionRefusedError:
            pass
        else:
            raise AssertionError
        os.close(writing)
        ended(pid)
        """
    )
