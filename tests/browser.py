"""A real Chromium without a window, spoken to over its own protocol: for pages that people see."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """The program, where the machine has it (Debian: ``apt-get install chromium``)."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Tab:
    """One page.

    Attributes:
        requested: every URL that it asked for.
        said: what the browser's console says, refusals of the content policy among it.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._loaded = False
        self.requested: list[str] = []
        self.said: list[str] = []

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's result; events that come before it are noted."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        await self._socket.send_json(message)
        while True:
            reply = json.loads(await self._socket.receive_str(timeout=30))
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]
            self._note(reply)

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(event["params"]["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.said.append(event["params"]["entry"]["text"])
        elif event.get("method") == "Page.loadEventFired":
            self._loaded = True

    async def attach(self) -> None:
        target = await self.send("Target.createTarget", url="about:blank")
        attached = await self.send(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.send(f"{domain}.enable")

    async def open(self, path: Path) -> None:
        self._loaded = False
        await self.send("Page.navigate", url=path.absolute().as_uri())
        while not self._loaded:
            self._note(json.loads(await self._socket.receive_str(timeout=30)))

    async def value(self, expression: str) -> Any:
        """What our own JavaScript says of the page; its content policy does not bind us."""
        result = await self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def point_at(self, selector: str) -> None:
        """Move the mouse onto the middle of an element, after scrolling to it."""
        x, y = await self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2] }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        await self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)


@asynccontextmanager
async def tab(program: str, folder: Path) -> AsyncIterator[Tab]:
    """A fresh browser with one page; ``folder`` is for its profile."""
    process = await asyncio.create_subprocess_exec(
        program,
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run"),
        *("--window-size=1300,1000", "about:blank"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stderr
        async with asyncio.timeout(60):
            while not (found := re.search(rb"ws://\S+", line := await process.stderr.readline())):
                assert line, "the browser ended at once"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(found[0].decode(), max_msg_size=0) as socket,
        ):
            page = Tab(socket)
            await page.attach()
            yield page
    finally:
        process.kill()
        await process.wait()
