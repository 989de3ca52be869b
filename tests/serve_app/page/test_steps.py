"""What stands around an answer: thoughts, plugin calls as steps, sources, pictures."""

import pytest
from playwright.async_api import Page, expect

from tests.serve_app.page.browsing import ask, settled, start
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]


async def test_thoughts_are_behind_a_bulb(page: Page) -> None:
    for moment in ("told", "stored"):
        if moment == "told":
            turn = await ask(page, "sum")
        else:
            await page.reload()
            turn = await settled(page, 1)
        thoughts = turn.locator("details.thoughts")
        await expect(thoughts.locator(".text")).to_be_hidden()
        await thoughts.locator("summary").click()
        await expect(thoughts.locator(".text")).to_have_text("The user says “sum”.")
    await expect((await ask(page, "say a", 2)).locator(".thoughts")).to_have_count(0)


async def test_a_call_is_a_step_that_folds(page: Page, server: Ingress) -> None:
    server.plugins.pause_s = 1.0
    await start(page, "sum")
    step = page.locator("details.call")
    await expect(step.locator("summary")).to_contain_text("running")
    await expect(step.locator(".call-argument")).to_have_text("12.5*48")
    await step.locator("summary").click()
    server.plugins.pause_s = 0.01
    await expect(step.locator("pre")).to_have_text("600")  # it stays open
    turn = await settled(page, 1)
    assert await turn.locator(".reply strong").inner_text() == "600"
    await expect(turn.locator("details.call pre")).to_be_visible()
    await page.reload()
    turn = await settled(page, 1)
    step = turn.locator("details.call")
    await expect(step.locator(".call-name")).to_have_text("Calculator")
    await expect(step.locator("pre")).to_be_hidden()
    await step.locator("summary").press("Enter")
    await expect(step.locator("pre")).to_have_text("600")
    await step.locator("summary").press("Enter")
    await expect(step.locator("pre")).to_be_hidden()


async def test_a_failed_call_says_so(page: Page) -> None:
    turn = await ask(page, "break")
    step = turn.locator("details.call")
    await expect(step).to_have_attribute("data-state", "failed")
    await expect(step.locator("summary")).to_contain_text("failed")


async def test_a_citation_opens_its_source(page: Page) -> None:
    for moment in ("told", "stored"):
        if moment == "stored":
            await page.reload()
        turn = await (ask(page, "find") if moment == "told" else settled(page, 1))
        link = turn.locator("sup.cite a")
        await expect(link).to_have_text("1")
        await expect(link).to_have_attribute("href", "https://moss.example/plant")
        await expect(link).to_have_attribute("target", "_blank")
        assert "noopener" in (await link.get_attribute("rel") or "")
        source = turn.locator('.sources [data-n="2"]')
        await expect(source).to_be_hidden()
        await turn.locator("sup.cite button").click()
        await expect(source).to_be_visible()
        await expect(source).to_be_focused()
        await expect(source).to_contain_text("A chat model of Fudan University.")
        titles = turn.locator(".sources li > :first-child")
        await expect(titles).to_have_text(["Moss, the plant", "A file of ours"])


async def test_a_picture_is_part_of_the_answer(page: Page) -> None:
    for moment in ("told", "stored"):
        if moment == "stored":
            await page.reload()
        turn = await (ask(page, "draw") if moment == "told" else settled(page, 1))
        picture = turn.locator(".pictures img")
        await expect(picture).to_be_visible()
        await expect(picture).to_have_attribute("alt", "a cat")
        await expect(picture).to_have_js_property("naturalWidth", 1)
