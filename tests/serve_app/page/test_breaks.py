"""Breaks in the middle of an answer: F5, another tab, a server that is killed: one text in all."""

import os
from typing import Literal

import pytest
from playwright.async_api import Page, expect

from tests.proof.figures import check
from tests.serve_app.page.browsing import (
    Browsing,
    has_begun,
    reply_of,
    session_of,
    settled,
    start,
    turns,
    uid_of,
)
from tests.serve_app.page.conftest import OpenBrowser
from tests.serve_app.page.ingress import Ingress
from tests.serve_app.page.script import words

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

Break = Literal["reload", "second tab", "killed"]
BREAKS: tuple[Break, ...] = ("reload", "second tab", "killed")
# The browser says so, too; the page tries again.
AWAY = "ERR_|Failed to load"
NUM_WORDS = 60


async def break_off(browsing: Browsing, page: Page, how: Break) -> Page:
    """Does it to an answer that is being told; returns a tab that has to show its end."""
    if how == "reload":
        await page.reload()
    elif how == "second tab":
        return await browsing.open(f"#{uid_of(page)}")
    else:
        await browsing.server.come_back()
    return page


async def is_one_text(browsing: Browsing, page: Page, how: Break, num_turns: int) -> bool:
    """Whether all tabs show the same, which is all of the answer that is stored."""
    server = browsing.server
    server.pace.hold(150)
    await start(page, f"count {NUM_WORDS}")
    await has_begun(page, "word10 ")
    other = await break_off(browsing, page, how)
    await has_begun(other, "word10 ")
    await expect(page.locator("article.running .bubble")).to_have_text(f"count {NUM_WORDS}")
    server.pace.hold(None)
    shown = [await reply_of(await settled(each, num_turns)) for each in (page, other)]
    if other != page:
        await other.close()
    stored = (await session_of(page))["turns"][-1]["reply"].strip()
    return stored == words(NUM_WORDS) and {" ".join(each.split()) for each in shown} == {
        " ".join(stored.split())
    }


@pytest.mark.parametrize("how", BREAKS)
async def test_an_answer_goes_on_after_a_break(browsing: Browsing, page: Page, how: Break) -> None:
    browsing.watch.expected = AWAY if how == "killed" else browsing.watch.expected
    assert await is_one_text(browsing, page, how, 1)


async def test_a_page_says_that_it_waits_for_the_server(
    browsing: Browsing, page: Page, server: Ingress
) -> None:
    browsing.watch.expected = AWAY
    async with server.pace.held(20):
        await start(page, "say This takes a while, and then it ends.")
        await has_begun(page, "This takes")
        await server.die()
        await expect(page.locator("#notes")).to_contain_text("The server does not answer")
        await server.start()
        await expect(page.locator("#notes")).to_contain_text("The server is back")
    assert await reply_of(await settled(page, 1)) == "This takes a while, and then it ends."


async def test_another_device_with_the_same_cookie_shows_the_turn(
    browsing: Browsing, page: Page, server: Ingress, open_browser: OpenBrowser
) -> None:
    phone = await open_browser(viewport={"width": 360, "height": 720}, has_touch=True)
    await phone.context.add_cookies(await browsing.context.cookies())  # type: ignore[arg-type]
    async with server.pace.held(20):
        await start(page, "say The same turn on another device.")
        await has_begun(page, "The same")
        there = await phone.open()
        await there.locator("#open-sidebar").tap()
        await there.locator("#chat-list li a").tap()
        await has_begun(there, "The same")
        await there.locator("#stop").tap()
        for each in (page, there):
            await settled(each, 1)
    texts = {await reply_of(turns(each).last) for each in (page, there)}
    assert len(texts) == 1 and texts.pop().startswith("The same turn")


@pytest.mark.chaos
async def test_ten_answers_go_on_after_each_break(browsing: Browsing, page: Page) -> None:
    browsing.watch.expected = AWAY
    number = int(os.environ.get("PROOF_PAGE_BREAKS", "10"))
    good = dict.fromkeys(BREAKS, 0)
    for _ in range(number):
        for how in BREAKS:
            await browsing.goto(page)
            good[how] += await is_one_text(browsing, page, how, 1)
    text = ", ".join(f"{how}: {count} of {number}" for how, count in good.items())
    check("page-breaks", text, set(good.values()) == {number})
