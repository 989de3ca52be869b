"""The list of chats in the page: named, found, copied, downloaded, deleted."""

import json
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.serve_app.page.browsing import Browsing, ask, reply_of, session_of, settled, turns

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

CODE = "say Some code:\n\n```python\nprint('a < b')\n```\n\nand $x^2$."


def listed(page: Page) -> Locator:
    return page.locator("#chat-list li a")


async def choose(page: Page, name: str) -> None:
    """An action on the first chat of the list."""
    await page.locator("#chat-list li button").first.click()
    await page.locator("#chat-list .menu").get_by_role("button", name=name).click()


async def test_a_chat_is_renamed(page: Page) -> None:
    await ask(page, "hello")
    await choose(page, "Rename")
    await expect(page.locator("#answer")).to_be_focused()
    await page.locator("#answer").fill("苔藓 & <b>moss</b>")
    await page.locator("#question-yes").click()
    await expect(listed(page)).to_have_text(["苔藓 & <b>moss</b>"])
    await expect(page.locator("#title")).to_have_text("苔藓 & <b>moss</b>")
    await expect(page).to_have_title("苔藓 & <b>moss</b> · MOSS")
    assert (await session_of(page))["title"] == "苔藓 & <b>moss</b>"
    await choose(page, "Rename")
    await page.locator("#answer").press("Escape")
    await expect(listed(page)).to_have_text(["苔藓 & <b>moss</b>"])


async def test_chats_are_found_by_their_titles_and_texts(page: Page) -> None:
    await ask(page, "say An answer about STRASSE")
    await page.locator("#new-chat").click()
    await ask(page, "where is 海洋?")
    await page.locator("#new-chat").click()
    await ask(page, "hello")
    for text, found in (("straße", ["say An answer about STRASSE"]), ("海洋", ["where is 海洋?"])):
        await page.locator("#search").fill(text)
        await expect(listed(page)).to_have_text(found)
    await page.locator("#search").fill("nowhere")
    await expect(page.locator("#chat-list .empty")).to_have_text("No chat has these words.")
    await page.locator("#search").fill("")
    await expect(listed(page)).to_have_count(3)
    await listed(page).last.click()
    assert await reply_of(await settled(page, 1)) == "An answer about STRASSE"
    await page.go_back()
    await expect(turns(page).locator(".bubble")).to_have_text("hello")


async def test_texts_answers_and_code_are_copied(page: Page) -> None:
    async def copied(button: Locator) -> str:
        await button.click()
        await expect(button.locator("svg path")).to_have_attribute("d", "M5 13l4 4L19 7")
        text: str = await page.evaluate("navigator.clipboard.readText()")
        return text

    turn = await ask(page, CODE)
    assert (await copied(turn.locator(".copy-code"))).strip() == "print('a < b')"
    assert await copied(turn.locator(".foot").get_by_role("button", name="Copy")) == CODE[4:]
    assert await copied(turn.locator(".question").get_by_role("button", name="Copy")) == CODE
    turn = await ask(page, "find", 2)
    answer = await copied(turn.locator(".foot").get_by_role("button", name="Copy"))
    assert answer == "Moss is a plant[1], and this chat[2]."


async def test_a_chat_is_downloaded(page: Page, tmp_path: Path) -> None:
    async def downloaded(name: str) -> str:
        async with page.expect_download() as promise:
            await choose(page, name)
        download = await promise.value
        assert download.suggested_filename.startswith("say one_")
        await download.save_as(tmp_path / "chat")
        return (tmp_path / "chat").read_text("utf-8")

    await ask(page, "say one/1")
    await ask(page, "find", 2)
    markdown = await downloaded("Download as Markdown")
    for part in ("# say one/1", "**say one/1**\n\none/1", "this chat[2].", "[1]: Moss, the plant"):
        assert part in markdown
    whole = json.loads(await downloaded("Download as JSON"))
    stored = await session_of(page)
    assert [turn["reply"] for turn in whole["tree"]] == [turn["reply"] for turn in stored["tree"]]


async def test_a_chat_is_deleted_when_that_is_wanted(browsing: Browsing, page: Page) -> None:
    await ask(page, "hello")
    other = await browsing.open(f"#{page.url.partition('#')[2]}")
    await settled(other, 1)
    await page.bring_to_front()  # a browser is slow to draw what nobody sees
    await choose(page, "Delete")
    await expect(page.locator("#question-text")).to_contain_text("hello")
    await page.locator("#question-no").click()
    await expect(listed(page)).to_have_count(1)
    await choose(page, "Delete")
    await page.locator("#question-yes").click()
    await expect(page.locator("#chat-list .empty")).to_be_visible()
    await expect(page.locator("#welcome")).to_be_visible()
    browsing.watch.expected = "404"
    await other.locator("#input").fill("are you there?")
    await other.locator("#input").press("Enter")
    await expect(other.locator("#welcome")).to_be_visible()


async def test_a_long_list_goes_on(browsing: Browsing, page: Page) -> None:
    for number in range(45):
        path = f"{browsing.server.url}/v1/sessions"
        await page.request.post(path, data={"title": f"chat {number}"})
    await page.reload()
    await expect(listed(page)).to_have_count(40)
    await page.locator("#more-chats").click()
    await expect(listed(page)).to_have_count(45)
    await expect(page.locator("#more-chats")).to_be_hidden()
    titles = await listed(page).all_inner_texts()
    assert titles == [f"chat {number}" for number in reversed(range(45))]
