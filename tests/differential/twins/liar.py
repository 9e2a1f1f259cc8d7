"""A beanstalkd behind a proxy that changes one piece of its replies: `liar.py BEANSTALKD OLD NEW -l ADDR -p PORT`.

Run as a program, it takes the place of the server under test, to show that the harness notices.
"""

import asyncio
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "shared"))

from launcher import serving


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, old: bytes, new: bytes) -> None:
    try:
        while data := await source.read(1 << 18):
            sink.write(data.replace(old, new) if old else data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()


async def _serve(inner: int, host: str, port: int, old: bytes, new: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", inner)
        answers = asyncio.ensure_future(_copy(far_reader, writer, old, new))
        await _copy(reader, far_writer, b"", b"")
        await answers
        for side in (writer, far_writer):
            side.close()

    server = await asyncio.start_server(handle, host, port)
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    await done.wait()
    server.close()


def main(arguments: list[str]) -> None:
    """Start beanstalkd on a port of its own and forward to it."""
    beanstalkd, old, new, _, host, _, port = arguments[:7]
    with serving([beanstalkd]) as inner:
        asyncio.run(_serve(inner.address[1], host, int(port), old.encode(), new.encode()))


if __name__ == "__main__":
    main(sys.argv[1:])
