"""The page's words: each there in both languages, and none of one language in the other."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.serve_app.page.browsing import ask
from tests.serve_app.page.conftest import OpenBrowser

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

SOURCES = {
    each.name: each.read_text("utf-8")
    for each in files("serve_app.page").joinpath("static").iterdir()
    if each.name.endswith((".js", ".html"))
}
Messages = dict[str, dict[str, str]]
LITERAL = re.compile(r"""\bt\(["'](\w+)["']|data-t(?:-\w+)?="(\w+)"|item\("\w+", "(\w+)\"""")
MADE = re.compile(r"\bt\(`(\w+_)\$")  # a key that is made of its beginning and a value
# All texts that a reader sees or hears.
TEXTS = """() => {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const texts = [];
    while (walk.nextNode()) texts.push(walk.currentNode.textContent);
    for (const name of ["aria-label", "title", "placeholder", "alt"])
        for (const each of document.querySelectorAll(`[${name}]`))
            texts.push(each.getAttribute(name));
    return texts.map((text) => text.trim()).filter((text) => text);
}"""


def missing(messages: Messages, sources: dict[str, str]) -> set[str]:
    """Keys that one language has not got, or that a source uses and nobody has."""
    known = set.union(*(set(words) for words in messages.values()))
    lacking = {key for words in messages.values() for key in known - {k for k in words if words[k]}}
    used = {key for text in sources.values() for found in LITERAL.findall(text) for key in found}
    starts = {start for text in sources.values() for start in MADE.findall(text)}
    unknown = {key for key in used - {""} if key not in known}
    return lacking | unknown | {s for s in starts if not any(key.startswith(s) for key in known)}


async def messages_of(page: Page) -> Messages:
    found: Messages = await page.evaluate("import('./ui/i18n.js').then(({ MESSAGES }) => MESSAGES)")
    return found


async def test_no_key_is_missing(page: Page) -> None:
    messages = await messages_of(page)
    assert len(messages["en"]) > 50 and set(messages) == {"en", "zh"}
    assert missing(messages, SOURCES) == set()
    fewer = json.loads(json.dumps(messages))
    del fewer["zh"]["stop"]
    assert missing(fewer, SOURCES) == {"stop"}, "the control"
    more = {**SOURCES, "x.js": 't("nothing_like_it") + t(`no_such_${x}`)'}
    assert missing(messages, more) == {"nothing_like_it", "no_such_"}
    for key, text in messages["en"].items():
        values = re.findall(r"\{\w+\}", text)
        assert sorted(values) == sorted(re.findall(r"\{\w+\}", messages["zh"][key])), key


@pytest.mark.parametrize(("locale", "other"), [("zh-CN", "en"), ("en-US", "zh")])
async def test_all_words_are_of_one_language(
    open_browser: OpenBrowser, locale: str, other: str
) -> None:
    page = await (await open_browser(locale=locale)).open()
    messages = await messages_of(page)
    own = messages["zh" if other == "en" else "en"]
    same = {"try_4"}  # a question in the other language, on purpose
    foreign = {text for key, text in messages[other].items() if key not in same}
    foreign -= set(own.values())

    async def check() -> None:
        shown: list[Any] = await page.evaluate(TEXTS)
        button = {"English", "中文"}
        assert not foreign & {*shown} - button

    await check()
    for number, text in enumerate(("find", "draw", "break", "count 3"), 1):
        await ask(page, text, number)
    await page.locator("#chat-list li button").first.click()
    await check()
    await page.keyboard.press("Escape")
    await page.locator("#open-settings").click()
    await check()
    await page.keyboard.press("Escape")
    await page.locator("#language").click()
    await expect(page.locator("html")).to_have_attribute("lang", other)
    again = page.locator('[data-action="regenerate"]').last  # chats are read again
    await expect(again).to_have_attribute("title", messages[other]["regenerate"])
    shown = {*await page.evaluate(TEXTS)}
    assert foreign & shown, "the control"
    assert not {own["new_chat"], own["ask"], own["hint"], own["regenerate"]} & shown
