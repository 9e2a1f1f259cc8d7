"""A browser without a screen, which its DevTools drive. Its network reaches this machine only."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from depth import absent
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.sync.client import ClientConnection

__all__ = ["Page", "browsing"]

START_WITHIN_S = 30.0
WAIT_S = 15.0


class Page:
    """One page.

    Attributes:
        asked: The addresses of all its requests.
        complaints: The messages on its console: errors, and refusals of the security policy.
    """

    def __init__(self, socket: ClientConnection) -> None:
        """Drive the page of a DevTools connection."""
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self._numbers = itertools.count(1)
        self._socket = socket
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **arguments: Any) -> Any:
        """Execute a command of the DevTools protocol; return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": arguments}))
        while True:
            told = json.loads(self._socket.recv(timeout=WAIT_S))
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
            self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        what, how = told.get("method"), told.get("params", {})
        if what == "Network.requestWillBeSent":
            self.asked.append(how["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(how["exceptionDetails"]))
        elif what == "Log.entryAdded" and how["entry"]["level"] == "error":
            self.complaints.append(how["entry"]["text"])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.command("Page.navigate", url=url)

    def tell(self, expression: str) -> Any:
        """Return the value of an expression in the page. If it is a promise, wait for its value."""
        result = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true; return its value."""
        give_up_at = time.monotonic() + WAIT_S
        while not (value := self.tell(expression)):
            assert time.monotonic() < give_up_at, (
                f"{expression}\n{self.tell('document.body.innerText')}\n{self.complaints}"
            )
            time.sleep(0.03)
        return value

    def text(self) -> str:
        """Return all visible text."""
        return str(self.tell("document.body.innerText"))

    def click(self, label: str, within: str = "document") -> None:
        """Click the first button with this label."""
        find = f"[...{within}.querySelectorAll('button')].find((one) => one.textContent === {json.dumps(label)})"
        self.wait(f"Boolean({find})")
        self.tell(f"{find}.click()")

    def fill(self, label: str, value: str, within: str = "dialog") -> None:
        """Fill the field whose label begins with a text, in the open dialog or in the element of a selector."""
        self.tell(
            f"""(() => {{
                const label = [...document.querySelectorAll('{within} label')].find((one) => one.innerText.startsWith({json.dumps(label)}));
                const field = label.querySelector('input, textarea, select');
                field.value = {json.dumps(value)};
                field.dispatchEvent(new Event('input', {{ bubbles: true }}));
            }})()"""
        )

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.command("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set another size and colour scheme."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Save a picture of the page as a PNG."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))


@contextlib.contextmanager
def browsing() -> Iterator[Page]:
    """Open a page in a browser, which ends with the page. Skip if there is no Chromium."""
    command = shutil.which("chromium") or absent("chromium is not installed")
    with contextlib.ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(prefix="chromium.", ignore_cleanup_errors=True))
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
        ]
        process = subprocess.Popen(
            [command, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        stack.callback(process.wait, 20)
        stack.callback(process.terminate)
        chosen = Path(profile, "DevToolsActivePort")
        give_up_at = time.monotonic() + START_WITHIN_S
        while not (chosen.exists() and chosen.read_text().strip()):
            assert process.poll() is None, "chromium ended"
            assert time.monotonic() < give_up_at, "chromium does not start"
            time.sleep(0.05)
        port = chosen.read_text().split()[0]
        made = httpx.put(f"http://127.0.0.1:{port}/json/new?about:blank", timeout=WAIT_S, trust_env=False).json()
        address = made["webSocketDebuggerUrl"]
        yield Page(stack.enter_context(connect(address, max_size=1 << 26, compression=None, proxy=None)))
