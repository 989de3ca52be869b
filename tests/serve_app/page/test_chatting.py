"""A chat in the page: answers as they are told, stopped, made again, asked otherwise, rated."""

import re
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.serve_app.page.browsing import (
    Browsing,
    ask,
    has_begun,
    reply_of,
    session_of,
    settled,
    start,
    turns,
)
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]


def action(turn: Locator, name: str) -> Locator:
    return turn.locator(f'[data-action="{name}"]')


async def test_an_answer_is_shown_as_it_is_told(page: Page, server: Ingress) -> None:
    async with server.pace.held(30):
        await start(page, "say **Bold** at first. " + "And then some more of it. " * 3)
        await has_begun(page, "at first")
        running = page.locator("article.turn.running")
        await expect(running.locator("strong")).to_have_text("Bold")
        await expect(running.locator(".bubble")).to_contain_text("say **Bold**")
        await expect(page.locator("#send")).to_be_hidden()
        assert (await reply_of(running)).count("some more") < 3
        await expect(running.locator(".thoughts")).to_have_count(0)
    turn = await settled(page, 1)
    assert (await reply_of(turn)).endswith("some more of it.")
    await expect(turn.locator(".counts")).to_have_text(re.compile(r"^\d+ tokens · \d+\.\d s$"))
    await expect(page.locator("#chat-list li.open a")).to_contain_text("say **Bold**")


async def test_what_was_told_before_a_stop_is_kept(page: Page, server: Ingress) -> None:
    async with server.pace.held(30):
        await start(page, "say The beginning is this, and there is an end of it, too.")
        await has_begun(page, "The beginning")
        await page.locator("#stop").click()
        turn = await settled(page, 1)
    shown = await reply_of(turn)
    assert shown.startswith("The beginning") and "too" not in shown
    assert (await session_of(page))["turns"][0]["reply"].strip() == shown
    await expect(turn.locator(".counts")).to_contain_text("stopped")
    await page.reload()
    assert await reply_of(await settled(page, 1)) == shown
    assert await reply_of(await ask(page, "go on", 2)) == "turn 2"


async def test_an_answer_is_made_again_and_both_are_there(page: Page) -> None:
    first = await reply_of(await ask(page, "dice"))
    await action(turns(page).last, "regenerate").click()
    turn = await settled(page, 1)
    second = await reply_of(turn)
    assert first.startswith("The dice say") and second.startswith("The dice say")
    assert first != second
    await expect(turn.locator(".stepper")).to_have_text("2/2")
    await expect(action(turn, "next")).to_be_disabled()
    await action(turn, "previous").click()
    await expect(turns(page).last.locator(".stepper")).to_have_text("1/2")
    assert await reply_of(turns(page).last) == first
    await page.reload()
    assert await reply_of(await settled(page, 1)) == first, "it is the active one everywhere"
    await action(turns(page).last, "next").click()
    await expect(turns(page).last.locator(".reply")).to_have_text(second)


async def test_another_question_is_another_branch(page: Page) -> None:
    await ask(page, "say one")
    await ask(page, "say two", 2)
    first = turns(page).first
    await first.get_by_role("button", name="Edit").click()
    field = first.locator("textarea")
    await expect(field).to_be_focused()
    await field.press("Escape")
    await expect(first.locator(".bubble")).to_have_text("say one")
    await first.get_by_role("button", name="Edit").click()
    await first.locator("textarea").fill("say three")
    await first.locator("textarea").press("Enter")
    turn = await settled(page, 1)
    assert await reply_of(turn) == "three"
    await action(turn, "previous").click()
    await expect(turns(page)).to_have_count(2)
    assert await reply_of(turns(page).last) == "two"
    assert await reply_of(await ask(page, "hello", 3)) == "turn 3"


async def test_a_rating_is_stored_and_taken_back(page: Page) -> None:
    async def rate(name: str, stored: dict[str, Any] | None) -> None:
        await action(turns(page).last, name).click()
        pressed = "false" if stored is None else "true"
        await expect(action(turns(page).last, name)).to_have_attribute("aria-pressed", pressed)
        assert (await session_of(page))["turns"][0]["feedback"] == stored

    await ask(page, "hello")
    await rate("like", {"liked": True, "comment": ""})
    await rate("dislike", {"liked": False, "comment": ""})
    await expect(action(turns(page).last, "like")).to_have_attribute("aria-pressed", "false")
    await page.reload()
    await settled(page, 1)
    await expect(action(turns(page).last, "dislike")).to_have_attribute("aria-pressed", "true")
    await rate("dislike", None)


async def test_a_failed_answer_can_be_asked_for_again(page: Page, server: Ingress) -> None:
    server.model.fails = True
    await start(page, "say it works")
    failure = page.locator(".failure")
    await expect(failure).to_contain_text("No answer")
    server.model.fails = False
    await failure.get_by_role("button").click()
    assert await reply_of(await settled(page, 1)) == "it works"


async def test_a_message_that_finds_the_chat_busy_is_given_back(
    browsing: Browsing, page: Page, server: Ingress
) -> None:
    await ask(page, "hello")
    browsing.watch.expected = "409"
    other = await browsing.open(f"#{page.url.partition('#')[2]}")
    await settled(other, 1)
    async with server.pace.held(3):
        await start(page, "say something long")
        await expect(page.locator("article.running")).to_be_visible()
        await other.evaluate("document.getElementById('stop').hidden")
        if await other.locator("article.running").count() == 0:
            await start(other, "say mine")
            await expect(other.locator("#input")).to_have_value("say mine")
        await expect(other.locator("article.running")).to_be_visible()
    for each in (page, other):
        assert await reply_of(await settled(each, 2)) == "something long"
