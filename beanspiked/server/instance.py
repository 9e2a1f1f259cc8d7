"""What a server is told apart by, in `stats`."""

import os

__all__ = ["instance_id"]


def instance_id() -> str:
    """Make 16 hexadecimal digits that no YAML parser takes for a number: one is a letter other than e."""
    digits = os.urandom(8).hex()
    return digits if set(digits) & set("abcdf") else "a" + digits[1:]
