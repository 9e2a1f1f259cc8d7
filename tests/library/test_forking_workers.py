"""Workers, handlers and servers of a program that forks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depth import full_depth
from forking import run

if TYPE_CHECKING:
    from stores import Stores

pytestmark = full_depth


def test_a_handler_that_forks_leaves_its_jobs_to_the_parents_worker(stores: Stores) -> None:
    run(
        """
        import logging

        class Heard(logging.Handler):
            def emit(self, record):
                heard.append(record.getMessage())

        pids, done, heard = [], [], []
        logging.getLogger("beanspiked").addHandler(Heard())

        async def handle(worker, job):
            global mine
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                mine = f"job {job.id} of"
                if job.body != b"0":
                    await job.release()
                return
            pids.append(pid)
            await asyncio.sleep(0.05)
            done.append(job.body)
            if len(done) == 3:
                asyncio.get_running_loop().call_later(0.2, worker.stop)

        try:
            asyncio.run(work(connect(url), tube_name, handle, jobs=3, concurrency=2))
        except beanspiked.ConnForked as error:
            # Each child's copy of the worker ends, and the handler that forked has not failed there.
            fine = error.owner == me and os.getpid() != me and not done[3:] and not any(mine in line for line in heard)
            os._exit(0 if fine else 1)
        assert sorted(done) == [b"0", b"1", b"2"]
        for pid in pids:
            ended(pid)
        """,
        stores,
    )


def test_a_signal_for_a_child_ends_the_child_and_not_its_parents_worker() -> None:
    run(
        """
        import uvloop

        async def handle(worker, job):
            pid = os.fork()
            if pid == 0:
                try:
                    time.sleep(10)
                finally:
                    os._exit(3)
            await asyncio.sleep(0.1)
            os.kill(pid, number)
            status = os.waitpid(pid, 0)[1]
            assert os.waitstatus_to_exitcode(status) in (-number, 3), (number, loop, status)
            await asyncio.sleep(0.1)
            fine.append(job.held)
            worker.stop()

        for loop in asyncio, uvloop:
            for number in signal.SIGTERM, signal.SIGINT:
                fine, began = [], time.monotonic()
                with asyncio.Runner(loop_factory=loop.new_event_loop) as runner:
                    runner.run(work(connect(url), tube_name, handle))
                assert time.monotonic() - began < 5, (number, loop)
                assert fine == [True], (number, loop)
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
        raised(ConnectionRefusedError, lambda: socket.create_connection((host, int(port)), timeout=5))
        os.close(writing)
        ended(pid)
        """
    )
