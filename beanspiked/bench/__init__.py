"""`beanspiked bench`: loads beanstalkd-compatible servers and prints how fast they are.

options   the command line
replies   bytes from the server -> counts and job ids (no I/O)
latency   a histogram of fixed size
load      connections that keep their commands in flight: one measured run
report    the table, the JSON document, the ratios
command   rounds, alternating between two servers, Ctrl-C, exit status
"""

from __future__ import annotations

from beanspiked.bench.command import main

__all__ = ["main"]
