"""Drivers of JavaScript client libraries. These run in a node process."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self

from drivers import REPLY_SECONDS, STATUS, Refused

if TYPE_CHECKING:
    from pathlib import Path


class NodeProcess:
    """A node process that performs operations with one JavaScript library. Each line in both directions is a JSON document."""

    def __init__(self, node: str, scripts: Path, node_modules: Path, library: str) -> None:
        self._process = subprocess.Popen(
            [node, "--no-deprecation", str(scripts / "driver.js"), library],
            env=os.environ | {"NODE_PATH": str(node_modules)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process by closing its input."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reader.join()

    def connection(self, port: int) -> NodeConnection:
        return NodeConnection(self, int(self.ask("open", port)))

    def ask(self, operation: str, *arguments: Any, connection: int = 0) -> Any:
        answer: Future[Any] = Future()
        assert self._process.stdin is not None
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = answer
            question = {"number": number, "connection": connection, "operation": operation, "arguments": arguments}
            self._process.stdin.write(json.dumps(question, default=encoded) + "\n")
        return answer.result(REPLY_SECONDS)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            reply = json.loads(line)
            with self._lock:
                answer = self._waiting.pop(reply["number"])
            if "value" in reply:
                answer.set_result(decoded(reply["value"]))
            else:
                status = STATUS.search(reply["error"])
                answer.set_exception(Refused(status[0]) if status else RuntimeError(reply["error"]))
        with self._lock:
            for answer in self._waiting.values():
                answer.set_exception(RuntimeError("the node process ended"))


class NodeConnection:
    """One connection of a node process."""

    def __init__(self, process: NodeProcess, number: int) -> None:
        self._process = process
        self._number = number

    def do(self, operation: str, *arguments: Any) -> Any:
        return self._process.ask(operation, *arguments, connection=self._number)

    def close(self) -> None:
        self.do("close")


def encoded(value: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(value).decode()}


def decoded(value: Any) -> Any:
    match value:
        case {"base64": text}:
            return base64.b64decode(text)
        case list():
            return [decoded(item) for item in value]
        case _:
            return value
