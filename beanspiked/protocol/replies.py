"""Every reply of the protocol, as bytes."""

from typing import Final

CRLF: Final = b"\r\n"

OUT_OF_MEMORY: Final = b"OUT_OF_MEMORY\r\n"
INTERNAL_ERROR: Final = b"INTERNAL_ERROR\r\n"
BAD_FORMAT: Final = b"BAD_FORMAT\r\n"
UNKNOWN_COMMAND: Final = b"UNKNOWN_COMMAND\r\n"
EXPECTED_CRLF: Final = b"EXPECTED_CRLF\r\n"
JOB_TOO_BIG: Final = b"JOB_TOO_BIG\r\n"
DRAINING: Final = b"DRAINING\r\n"
DEADLINE_SOON: Final = b"DEADLINE_SOON\r\n"
TIMED_OUT: Final = b"TIMED_OUT\r\n"
NOT_FOUND: Final = b"NOT_FOUND\r\n"
NOT_IGNORED: Final = b"NOT_IGNORED\r\n"
DELETED: Final = b"DELETED\r\n"
RELEASED: Final = b"RELEASED\r\n"
BURIED: Final = b"BURIED\r\n"
TOUCHED: Final = b"TOUCHED\r\n"
KICKED: Final = b"KICKED\r\n"
PAUSED: Final = b"PAUSED\r\n"


def inserted(job_id: int) -> bytes:
    """Acknowledge a put."""
    return f"INSERTED {job_id}\r\n".encode()


def reserved(job_id: int, size: int) -> bytes:
    """Announce a reserved job; its body and a CRLF follow."""
    return f"RESERVED {job_id} {size}\r\n".encode()


def found(job_id: int, size: int) -> bytes:
    """Announce a peeked job; its body and a CRLF follow."""
    return f"FOUND {job_id} {size}\r\n".encode()


def kicked(count: int) -> bytes:
    """Say how many jobs `kick` made ready."""
    return f"KICKED {count}\r\n".encode()


def using(name: str) -> bytes:
    """Name the tube in use."""
    return f"USING {name}\r\n".encode()


def watching(count: int) -> bytes:
    """Say how many tubes are watched."""
    return f"WATCHING {count}\r\n".encode()


def ok(document: bytes) -> bytes:
    """Carry a YAML document; its length does not count the final CRLF."""
    return b"OK %d\r\n%b\r\n" % (len(document), document)
