"""The id by which `stats` tells servers apart."""

import os

__all__ = ["instance_id"]


def instance_id() -> str:
    """Make 16 hexadecimal digits. One is a letter other than e, so that no YAML parser takes them for a number."""
    digits = os.urandom(8).hex()
    return digits if set(digits) & set("abcdf") else "a" + digits[1:]
