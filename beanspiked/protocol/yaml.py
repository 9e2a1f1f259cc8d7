"""The YAML of stats and lists: beanstalkd 1.13's text, quotes included."""

from collections.abc import Iterable

__all__ = ["mapping", "quoted", "sequence"]


def quoted(value: str) -> str:
    """Quote a string as beanstalkd 1.13 quotes names that clients chose (#592, #610, #640).

    Characters outside printable ASCII are escaped: the most used Python client decodes replies as ASCII.
    """
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').encode("ascii", "backslashreplace").decode() + '"'


def mapping(fields: Iterable[tuple[str, object]]) -> bytes:
    """Write `key: value` lines in the order given."""
    return ("---\n" + "".join([f"{key}: {value}\n" for key, value in fields])).encode()


def sequence(items: Iterable[str]) -> bytes:
    """Write a list of bare strings."""
    lines = "\n- ".join(items)
    return f"---\n- {lines}\n".encode() if lines else b"---\n"
