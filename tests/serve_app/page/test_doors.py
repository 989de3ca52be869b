"""How the page is reached: with a key, at a prefix, quickly, and without asking anyone else."""

from collections.abc import AsyncIterator
from importlib.resources import files

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from serve_app.rendering.isolated import IsolatedRenderer
from tests.serve_app.access.key_ring import KeyRing, key_ring
from tests.serve_app.page.browsing import WIDE, ask, reply_of, session_of
from tests.serve_app.page.conftest import OpenBrowser
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

MAX_BYTES = 150 * 1024
UNKNOWN = "401"  # the browser itself tells of it


@pytest_asyncio.fixture(loop_scope="package")
async def ring(store_url: str) -> AsyncIterator[KeyRing]:
    async with key_ring(store_url) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="package")
async def locked(
    store_url: str, renderer: IsolatedRenderer, ring: KeyRing
) -> AsyncIterator[Ingress]:
    made = Ingress(store_url, renderer, ring.gate)
    await made.start()
    yield made
    await made.die()


async def test_a_key_opens_the_page(
    open_browser: OpenBrowser, locked: Ingress, ring: KeyRing
) -> None:
    browsing = await open_browser(locked)
    browsing.watch.expected = UNKNOWN
    page = await browsing.context.new_page()
    await page.goto(f"{locked.url}/ui")
    await expect(page.locator("#app")).to_be_hidden()
    await expect(page.locator("#key")).to_be_focused()
    await page.keyboard.type("moss-wrong")
    await page.keyboard.press("Enter")
    await expect(page.locator("#key-error")).to_have_text("The server does not know this key.")
    secret = await ring.make("eve")
    await page.locator("#key").fill(secret)
    await page.keyboard.press("Enter")
    await expect(page.locator("#gate")).to_be_hidden()
    assert await reply_of(await ask(page, "hello")) == "turn 1"
    assert secret not in str(await page.context.storage_state())
    await page.reload()
    await expect(page.locator("#chat-list li a")).to_have_text(["hello"])
    other = await open_browser(locked)
    other.watch.expected = UNKNOWN
    there = await other.context.new_page()
    await there.goto(f"{locked.url}/ui#{page.url.partition('#')[2]}")
    await there.locator("#key").fill(secret)
    await there.keyboard.press("Enter")
    await expect(there.locator(".reply")).to_have_text("turn 1")
    await page.locator("#logout").click()
    await expect(page.locator("#key")).to_be_visible()
    await page.reload()
    await expect(page.locator("#key")).to_be_visible()


async def test_a_key_that_ends_asks_for_another(
    open_browser: OpenBrowser, locked: Ingress, ring: KeyRing
) -> None:
    browsing = await open_browser(locked)
    browsing.watch.expected = UNKNOWN
    page = await browsing.context.new_page()
    await page.goto(f"{locked.url}/ui")
    secret = await ring.make("ann")
    await page.locator("#key").fill(secret)
    await page.keyboard.press("Enter")
    await ask(page, "hello")
    await ring.revoke(secret)
    await page.locator("#input").fill("are you there?")
    await page.keyboard.press("Enter")
    await expect(page.locator("#key")).to_be_visible()


async def test_the_page_works_at_any_prefix(
    open_browser: OpenBrowser, store_url: str, renderer: IsolatedRenderer
) -> None:
    made = Ingress(store_url, renderer, prefix="/some/where")
    await made.start()
    browsing = await open_browser(made)
    page = await browsing.context.new_page()
    for path in ("/some/where/", "/some/where/ui/", "/some/where/ui"):
        await page.goto(f"{made.origin}{path}")
        assert page.url == f"{made.origin}/some/where/ui"
    assert await reply_of(await ask(page, "hello")) == "turn 1"
    turn = await ask(page, "draw", 2)
    await expect(turn.locator(".pictures img")).to_have_js_property("naturalWidth", 1)
    assert len((await session_of(page))["turns"]) == 2
    assert all(url.startswith(f"{made.origin}/some/where/") for url in browsing.watch.requests)
    (cookie,) = await browsing.context.cookies()
    assert cookie.get("path") == "/some/where"
    await browsing.context.close()
    await made.die()


async def test_the_whole_page_is_small(open_browser: OpenBrowser) -> None:
    sizes = [
        len(each.read_bytes()) for each in files("serve_app.page").joinpath("static").iterdir()
    ]
    assert 10_000 < sum(sizes) <= MAX_BYTES
    browsing = await open_browser()
    await browsing.open()
    asked = [url.rpartition("/")[2] for url in browsing.watch.requests if "/ui/" in url]
    assert len(asked) > 5
    assert {name for name in asked if asked.count(name) > 1} <= {"icon.svg"}


async def test_a_browser_that_was_here_reads_no_file_again(page: Page) -> None:
    statuses: dict[str, int] = {}
    page.on("response", lambda answer: statuses.update({answer.url: answer.status}))
    await page.reload()
    await expect(page.locator("#model")).not_to_be_empty()
    again = await page.evaluate(
        "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/ui/'))"
        ".map(({ encodedBodySize, transferSize }) => [transferSize, encodedBodySize])"
    )
    assert len(again) > 5 and all(sent < size for sent, size in again if size > 1000)
    assert await page.evaluate("innerWidth") == WIDE["width"]
