"""A chat in the page: answers as they are told, stopped, made again, asked otherwise, rated."""

import re

import pytest
from playwright.async_api import Page, expect

from tests.serve_app.page.browsing import has_begun, reply_of, settled, start
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]


async def test_an_answer_is_shown_as_it_is_told(page: Page, server: Ingress) -> None:
    async with server.pace.held(60):
        await start(page, "say **Bold** at first. " + "And then some more of it. " * 3)
        await has_begun(page, "at first")
        running = page.locator("article.turn.running")
        await expect(running.locator("strong")).to_have_text("Bold")
        await expect(running.locator(".bubble")).to_contain_text("say **Bold**")
        await expect(page.locator("#send")).to_be_hidden()
    turn = await settled(page, 1)
    assert (await reply_of(turn)).endswith("some more of it.")
    await expect(turn.locator(".counts")).to_have_text(re.compile(r"^\d+ tokens · \d+\.\d s$"))
