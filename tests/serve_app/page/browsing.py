"""The page in a real browser: tabs that are watched, and what a test does in them."""

import re
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import (
    BrowserContext,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Request,
    expect,
)

from tests.serve_app.page.ingress import Ingress

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 360, "height": 720}
STORED = 'article.turn[data-id]:not([data-id=""])'
# What the browser itself says of an answer that is an error, or of no answer.
FAILED = r"Failed to load resource"


@dataclass
class Watch:
    """What goes wrong in the tabs of a browser: errors of scripts, refusals of the policy,
    requests to others, dialogs that a script opened. `expected` is a pattern of what may."""

    origin: str
    expected: str = r"(?!)"
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def tab(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._note(f"error: {error}"))
        page.on("request", self._on_request)
        page.on("dialog", self._on_dialog)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._note(f"{message.type}: {message.text}")

    async def _on_dialog(self, dialog: Dialog) -> None:
        self._note(f"dialog: {dialog.message}")
        await dialog.dismiss()  # else the page waits for it

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        if not request.url.startswith((f"{self.origin}/", f"blob:{self.origin}/", "data:")):
            self._note(f"request: {request.url}")

    def _note(self, problem: str) -> None:
        if not re.search(self.expected, problem):
            self.problems.append(problem)


@dataclass
class Browsing:
    """One browser with a cookie of its own, so with chats of its own."""

    context: BrowserContext
    server: Ingress
    watch: Watch

    async def open(self, where: str = "") -> Page:
        """A new tab, when the page is ready."""
        page = await self.context.new_page()
        await self.goto(page, where)
        return page

    async def goto(self, page: Page, where: str = "") -> None:
        await page.goto(f"{self.server.url}/ui{where}")
        await expect(page.locator("#model")).not_to_be_empty()
        await expect(page.locator("#switches button")).to_have_count(4)


def turns(page: Page) -> Locator:
    """Those that are stored."""
    return page.locator(STORED)


async def start(page: Page, text: str) -> None:
    """Sends a message."""
    await page.locator("#input").fill(text)
    await page.locator("#input").press("Enter")


async def settled(page: Page, num_turns: int) -> Locator:
    """The last of so many stored turns, when none runs."""
    await expect(turns(page)).to_have_count(num_turns)
    await expect(page.locator("#stop")).to_be_hidden()
    return turns(page).last


async def ask(page: Page, text: str, num_turns: int = 1) -> Locator:
    """The turn that answers a message, the last of so many."""
    await start(page, text)
    return await settled(page, num_turns)


async def reply_of(turn: Locator) -> str:
    return (await turn.locator(".reply").inner_text()).strip()


async def has_begun(page: Page, text: str) -> None:
    """Returns when the running turn shows `text`."""
    await expect(page.locator("article.turn.running .reply")).to_contain_text(text)


def uid_of(page: Page) -> str:
    """Of the chat that is open."""
    return page.url.partition("#")[2]


async def session_of(page: Page) -> dict[str, Any]:
    """The chat that is open, as the server has it."""
    origin = page.url.partition("/ui")[0]
    answer = await page.request.get(f"{origin}/v1/sessions/{uid_of(page)}?all=true")
    session: dict[str, Any] = await answer.json()
    return session
