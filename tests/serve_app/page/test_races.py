"""What a hasty or unlucky reader does: nothing that was typed is lost, nothing is done twice."""

import pytest
from playwright.async_api import Page, Route, expect

from tests.serve_app.page.browsing import NARROW, ask, has_begun, reply_of, settled, start, turns
from tests.serve_app.page.conftest import OpenBrowser
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

CHATS = "#chat-list li"


async def _unavailable(route: Route) -> None:
    await route.fulfill(status=503, json={"error": {"message": "away", "code": "overloaded"}})


async def test_a_suggestion_that_is_clicked_twice_begins_one_chat(page: Page) -> None:
    await page.locator(".suggestion").first.dblclick()
    await settled(page, 1)
    await expect(page.locator(CHATS)).to_have_count(1)


async def test_a_turn_can_be_stopped_before_it_has_begun(page: Page, server: Ingress) -> None:
    async with server.pace.held(0):
        await start(page, "count 30")
        await page.locator("#stop").click()
        await expect(page.locator("#stop")).to_be_hidden()
    await expect(page.locator("article.turn.running")).to_have_count(0)
    given_back = await page.locator("#input").input_value() == "count 30"
    assert given_back != (await turns(page).count() == 1), "it is stored, or it is given back"


async def test_while_a_turn_runs_it_stays_in_sight(page: Page, server: Ingress) -> None:
    await ask(page, "dice")
    await page.locator('[data-action="regenerate"]').click()
    await settled(page, 1)
    first = turns(page).first
    async with server.pace.held(30):
        await start(page, "count 30")
        await has_begun(page, "word1")
        for name in ("previous", "regenerate"):
            await first.locator(f'[data-action="{name}"]').dispatch_event("click")
        await page.locator("#language").click()
        await expect(page.locator("article.turn.running")).to_have_count(1)
        await page.locator("#language").click()
    turn = await settled(page, 2)
    assert (await reply_of(turn)).endswith("word30")


async def test_another_tab_shows_an_answer_that_is_made_again_in_its_place(
    page: Page, server: Ingress
) -> None:
    await ask(page, "count 30")
    async with server.pace.held(30):
        await page.locator('[data-action="regenerate"]').click()
        await has_begun(page, "word1")
        await page.reload()
        await has_begun(page, "word1")
        await expect(page.locator(".bubble")).to_have_text(["count 30"])
    await settled(page, 1)
    await expect(page.locator(".stepper")).to_contain_text("2/2")


async def test_an_open_editor_and_open_steps_outlive_the_next_turn(
    page: Page, server: Ingress
) -> None:
    await ask(page, "sum")
    first = turns(page).first
    await first.locator("details.call summary").click()
    async with server.pace.held(10):
        await start(page, "count 20")
        await has_begun(page, "word1")
        await first.locator(".bubble").hover()
        await first.locator('[data-action="edit"]').dispatch_event("click")
        await first.locator("textarea").fill("another question")
    await settled(page, 2)
    await expect(first.locator("textarea")).to_have_value("another question")
    await expect(first.locator("details.call")).to_have_attribute("open", "")


async def test_a_chat_that_could_not_be_opened_opens_when_it_can(open_browser: OpenBrowser) -> None:
    browsing = await open_browser()
    browsing.watch.expected = "Failed to load resource"
    page = await browsing.open()
    await ask(page, "hello")
    where = page.url.partition("/ui")[2]
    uid = where.strip("#")
    await page.locator("#new-chat").click()
    await page.route(f"**/v1/sessions/{uid}?*", _unavailable)
    await page.locator(f"{CHATS} a").click()
    await expect(page.locator("#notes")).to_contain_text("does not answer")
    await start(page, "not lost")
    assert await page.locator("#input").input_value() == "not lost"
    await page.unroute(f"**/v1/sessions/{uid}?*")
    await settled(page, 1)
    await expect(page.locator("#notes")).not_to_contain_text("does not answer")


async def test_what_failed_does_not_look_done(open_browser: OpenBrowser) -> None:
    browsing = await open_browser()
    browsing.watch.expected = "Failed to load resource"
    page = await browsing.open()
    await ask(page, "hello")
    await page.route("**/v1/sessions/*", _unavailable)
    await page.locator(f"{CHATS} button").click()
    await page.locator(".menu button").first.click()
    await page.locator("#answer").fill("another name")
    await page.locator("#answer").press("Enter")
    await expect(page.locator("#notes [role=alert]")).to_contain_text("too much to do")
    await expect(page.locator("#title")).to_have_text("hello")
    await page.locator("#switches button").first.click()
    await expect(page.locator("#switches button").first).to_have_attribute("aria-pressed", "true")


async def test_the_drawer_of_a_phone_takes_and_gives_back_the_focus(
    open_browser: OpenBrowser,
) -> None:
    page = await (await open_browser(viewport=NARROW)).open()
    await ask(page, "hello")
    await page.locator("#open-sidebar").click()
    await expect(page.locator("#close-sidebar")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.locator("#open-sidebar")).to_be_focused()
    await page.locator("#open-sidebar").click()
    await page.locator(f"{CHATS} a").click()  # the one that is open already
    await expect(page.locator("#sidebar")).to_be_hidden()
