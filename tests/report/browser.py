"""A headless Chromium, spoken to over a pipe in the DevTools protocol: no driver, no port, no further package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
BOXES = """[...document.querySelectorAll('figure svg[role=img], figure svg[role=img] *')]
    .filter(e => !['title'].includes(e.tagName))
    .map(e => [e.tagName, e.getBoundingClientRect().width, e.getBoundingClientRect().height])"""
OUTSIDE = """[...document.querySelectorAll('svg[role=img] text')].filter(text => {
    const inner = text.getBoundingClientRect(), outer = text.closest('svg').getBoundingClientRect();
    return inner.left < outer.left - 1 || inner.right > outer.right + 1
        || inner.top < outer.top - 1 || inner.bottom > outer.bottom + 1;
}).map(text => text.textContent)"""
MARKS = "svg[role=img] .line, svg[role=img] rect, svg[role=img] circle"
UNSEEN = f"""[...document.querySelectorAll('{MARKS}')].filter(mark => {{
    const style = getComputedStyle(mark), paper = getComputedStyle(mark.closest('.sparkopt')).backgroundColor;
    const colour = mark.classList.contains('line') ? style.stroke : style.fill;
    return colour === 'none' || colour === paper || style.visibility !== 'visible' || style.opacity === '0';
}}).length"""


def find() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One tab. ``events`` are all that the browser sent, in order."""

    def __init__(self, executable: str, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        script = f'exec "$@" 3<&{to_read} 4>&{to_write}'  # the protocol's pipes are descriptors 3 and 4
        self._process = subprocess.Popen(
            ["bash", "-c", script, "chromium", *command],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        os.set_blocking(self._read, False)
        self._buffer, self._count, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            self._session = None
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask, and return the answer."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        number = self._count
        answer = self._until(lambda found: found.get("id") == number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, path: Path, width: int = 1080, height: int = 1000, *, dark: bool = False) -> None:
        """Open a file and wait until it is there."""
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=path.as_uri())
        if not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Return a JavaScript expression's value, as plain data."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["text"])
        return found["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        """Return errors and warnings of the console since the page was opened."""
        self.evaluate("0")  # what came before it has arrived then
        logged = [event for event in self.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
        called = [event for event in self.events if event["method"] == "Runtime.consoleAPICalled"]
        return logged + called

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _until(self, wanted: Any) -> dict[str, Any]:
        """Read messages; keep events; return the first that is wanted."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            while b"\0" in self._buffer:
                text, self._buffer = self._buffer.split(b"\0", 1)
                found = json.loads(text)
                if "method" in found:
                    self.events.append(found)
                if wanted(found):
                    return found
            try:
                chunk = os.read(self._read, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            if not chunk:
                raise RuntimeError("the browser has ended")
            self._buffer += chunk
        raise RuntimeError("the browser does not answer")


def look(tab: Browser, path: Path, charts: int, pictures: int = 0, *, dark: bool = False) -> None:
    """Open a page: it must complain of nothing, load nothing, and show all its charts and pictures whole."""
    tab.open(path, dark=dark)
    assert tab.complaints() == []
    assert [url for url in tab.requested() if not url.startswith("data:")] == [path.as_uri()]
    boxes = tab.evaluate(BOXES)
    drawn = [(width, height) for tag, width, height in boxes if tag == "svg"]
    assert len(drawn) == charts
    assert all(width > 300 and height > 30 for width, height in drawn)
    assert all(width > 0 or height > 0 for _, width, height in boxes)
    assert tab.evaluate(OUTSIDE) == []
    assert tab.evaluate(UNSEEN) == 0
    sizes = tab.evaluate("[...document.images].map(image => [image.naturalWidth, image.clientWidth, image.alt])")
    assert len(sizes) == pictures
    assert all(natural > 1 and shown > 300 and said for natural, shown, said in sizes)
    paper = tab.evaluate("getComputedStyle(document.querySelector('.sparkopt')).backgroundColor")
    assert paper == ("rgb(20, 24, 29)" if dark else "rgb(255, 255, 255)")
