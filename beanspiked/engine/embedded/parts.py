"""Reads the log in parts, of which each becomes one transaction of the database."""

import time
from typing import Final, NamedTuple

from beanspiked.engine.contract import ALL
from beanspiked.engine.embedded.frames import START, LogFile, frames_of
from beanspiked.engine.embedded.records import Net

__all__ = ["Part", "read_part"]

# Others run after so many bytes of the log have been read, for so long.
BREATH_BYTES: Final = 1 << 16
BREATH_SECONDS: Final = 0.00005


class Part(NamedTuple):
    """What some frames come to, the number of the last one, and where that ends in its file."""

    net: Net
    number: int
    end: int


def read_part(files: list[LogFile], folded: int, most: int = ALL, at: int = START) -> Part:
    """Read what is not folded yet, until about so many bytes have to be written.

    Args:
        files: Where it is.
        folded: The number of the last frame that is folded.
        most: How many bytes.
        at: Where the next frame begins in the first file, or START.

    Raises:
        OSError: It cannot be read.
    """
    net = Net()
    number = folded
    end = at
    last = files[-1].last
    breath = 0
    for file in files:
        for frame in frames_of(file.fd, file.header, at, 0 if at == START else folded + 1):
            # Behind its last frame one may stand that was refused.
            if frame.number > file.last:
                break
            if net.size() >= most:
                return Part(net, number, end)
            if frame.number > folded:
                net.take(frame.data)
                number = frame.number
            end = frame.end
            breath += len(frame.data)
            if breath >= BREATH_BYTES:
                breath = 0
                time.sleep(BREATH_SECONDS)
        at = START
    if number < last:
        raise OSError(f"{files[0].path}: frame {number + 1} cannot be read any more")
    return Part(net, number, end)
