"""A page in a headless Chromium, spoken to through a pipe: no library, and nothing that listens on a port."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BINARY = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One tab. `errors` are what went wrong in it: exceptions, and messages of the console's level error."""

    def __init__(self, folder: Path) -> None:
        assert BINARY, "no chromium: apt-get install chromium, or name one in $CHROMIUM"
        asked, self._write = os.pipe()
        self._read, told = os.pipe()
        far = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (asked, told)]  # out of the way of 3 and 4
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={folder}"]
        self._process = subprocess.Popen(
            [BINARY, *arguments, "--remote-debugging-pipe", "--disable-dev-shm-usage", "about:blank"],
            preexec_fn=lambda: [os.dup2(one, number) for number, one in enumerate(far, 3)],  # where it reads and writes
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for one in (asked, told, *far):
            os.close(one)
        self.errors: list[str] = []
        self._number, self._rest, self._session = 0, b"", ""
        [tab] = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self._session = self.ask("Target.attachToTarget", targetId=tab["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> "Page":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the DevTools protocol."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        asked |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(asked).encode() + b"\0")
        while True:
            message = self._message()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def show(self, file: Path, *, width: int, height: int = 1000, dark: bool = False) -> float:
        """Open a file at a size and in a colour scheme; the seconds until it was loaded."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        begin = time.monotonic()
        self.ask("Page.navigate", url=file.resolve().as_uri())
        while self.value("document.readyState") != "complete":
            time.sleep(0.02)
        return time.monotonic() - begin

    def value(self, script: str) -> Any:
        """What a JavaScript expression gives; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A screenshot: of what is seen, or of the whole page."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            read = os.read(self._read, 1 << 16)
            assert read, "chromium ended"
            self._rest += read
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        details = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(details["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and details["entry"]["level"] == "error":
            self.errors.append(details["entry"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled" and details["type"] in {"error", "assert"}:
            self.errors.append(str(details["args"]))
        return message
