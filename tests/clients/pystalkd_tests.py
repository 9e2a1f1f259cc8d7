"""Run the tests in pystalkd's source distribution; called with the path of its test.py, a host and a port.

Its own command line passes the port on as text, which no socket takes. Two more things are arranged around it, in
memory: `test_timedelta` is left out, as its authors do, since it waits for ever; and random bodies begin and end with
something other than white space, which this client strips. The result is one JSON document.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import unittest

WAITS_FOR_EVER = {"test_timedelta"}

really_random = os.urandom


def random_without_outer_space(size: int) -> bytes:
    body = bytearray(really_random(size))
    for place in {0, size - 1} if size else ():
        if body[place : place + 1].isspace():
            body[place] = ord("x")
    return bytes(body)


def main() -> None:
    path, host, port = sys.argv[1:]
    os.urandom = random_without_outer_space
    case = runpy.run_path(path)["TestBeanstalkd"]
    names = set(unittest.defaultTestLoader.getTestCaseNames(case)) - WAITS_FOR_EVER
    suite = unittest.TestSuite(case(name, host, int(port)) for name in sorted(names))
    result = unittest.TextTestRunner().run(suite)
    broken = [str(test) for test, _ in result.failures + result.errors]
    print(json.dumps({"run": result.testsRun, "broken": broken, "skipped": len(result.skipped)}))


if __name__ == "__main__":
    main()
