"""The page for everyone: axe's rules, the keyboard alone, and a phone's width."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.serve_app.page.browsing import NARROW, WIDE, ask, settled
from tests.serve_app.page.conftest import OpenBrowser

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
FOUND = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`)"""
MARKDOWN = """say # Heading

A `long_name_of_something_that_is_longer_than_a_phone` and a [link](https://e.org), *so*, **that**.

| a | b | c | d | e | f |
|---|---|---|---|---|---|
| some more words | some more words | some more words | some more words | of it | 6 |

```python
def function(argument: int) -> str:  # a long line of code that does not fit into a phone's width
    return "text" + str(argument * 12.5)
```

1. one
2. two

> quoted

$$\\int_0^1 x^2 dx = \\frac{1}{3} + a_1 + a_2 + a_3 + a_4 + a_5 + a_6 + a_7 + a_8 + a_9 + a_{10}$$
"""
LONG = "say " + "unbroken" * 40


@pytest_asyncio.fixture(loop_scope="package", params=["light", "dark"])
async def full(open_browser: OpenBrowser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """A page with a chat of everything, in either colours."""
    browsing = await open_browser(color_scheme=request.param, bypass_csp=True)
    page = await browsing.open()
    for number, text in enumerate(("find", "draw", "break", MARKDOWN, LONG), 1):
        await ask(page, text, number)
    yield page


async def check_axe(page: Page) -> None:
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE)
    found = await page.evaluate(FOUND)
    assert not found, "\n".join(found)


async def test_axe_finds_nothing_serious(full: Page) -> None:
    page = full
    await check_axe(page)
    await page.evaluate(OPEN_ALL)
    await page.locator("#chat-list li button").first.click()
    await check_axe(page)
    await page.keyboard.press("Escape")
    await page.locator("#open-settings").click()
    await check_axe(page)
    await page.keyboard.press("Escape")
    await page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    await check_axe(page)
    await page.locator("#open-sidebar").click()
    await check_axe(page)
    await page.locator("#new-chat").click()
    await check_axe(page)
    await page.evaluate("document.querySelector('#title').innerHTML = '<img src=ui/icon.svg>'")
    assert "image-alt" in str(await page.evaluate(FOUND)), "the control"


OPEN_ALL = "for (const each of document.querySelectorAll('details')) each.open = true"
# What stands out of the page to the right, where nothing around it scrolls or cuts it off.
WIDE_ONES = """() => {
    const width = document.documentElement.clientWidth;
    const scrolls = (element) => element && element !== document.body
        && (/auto|scroll|hidden/.test(getComputedStyle(element).overflowX)
            || scrolls(element.parentElement));
    const isOut = (element) => element.checkVisibility()
        && element.getBoundingClientRect().right > width + 1
        && getComputedStyle(element).position !== "fixed" && !scrolls(element.parentElement);
    const main = document.getElementById("main");
    const out = [...document.querySelectorAll("body *")].filter(isOut);
    const wide = [document.documentElement, main].filter((e) => e.scrollWidth > e.clientWidth);
    return [...wide, ...out].map((element) => element.outerHTML.slice(0, 200));
}"""


@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
async def test_nothing_scrolls_sideways(open_browser: OpenBrowser, size: dict[str, int]) -> None:
    for locale in ("en-US", "zh-CN"):
        page = await (await open_browser(viewport=size, locale=locale)).open()
        assert await page.evaluate(WIDE_ONES) == []
        for number, text in enumerate(("find", MARKDOWN, LONG), 1):
            await ask(page, text, number)
        await page.evaluate(OPEN_ALL)
        assert await page.evaluate(WIDE_ONES) == []
        await page.locator("#open-settings").click()
        assert await page.evaluate(WIDE_ONES) == []
        await page.keyboard.press("Escape")
        if size == NARROW:
            await page.locator("#open-sidebar").click()
            assert await page.evaluate(WIDE_ONES) == []
    await page.evaluate("document.querySelector('#dock .hint').style.width = '2000px'")
    assert await page.evaluate(WIDE_ONES) != [], "the control"


class Keyboard:
    """A reader without a mouse: reaches things by Tab, and sees where the focus is."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def reach(self, selector: str, back: bool = False) -> None:
        for _ in range(80):
            if await self.page.evaluate(f"document.activeElement.matches({selector!r})"):
                shown: Any = await self.page.evaluate(
                    "(({ outlineStyle, boxShadow }) => [outlineStyle, boxShadow])"
                    "(getComputedStyle(document.activeElement))"
                )
                assert shown != ["none", "none"] or "#input" in selector, (
                    f"{selector} shows no focus"
                )
                return
            await self.page.keyboard.press("Shift+Tab" if back else "Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    async def press(self, selector: str, key: str = "Enter", back: bool = False) -> None:
        await self.reach(selector, back)
        await self.page.keyboard.press(key)

    async def type(self, text: str) -> None:
        await self.page.keyboard.type(text)


async def test_everything_is_reached_by_the_keyboard(open_browser: OpenBrowser) -> None:
    page = await (await open_browser()).open()
    keys = Keyboard(page)
    await page.reload()
    await expect(page.locator("#switches button")).to_have_count(4)
    await page.evaluate("document.activeElement.blur()")
    await keys.press("#skip")
    await expect(page.locator("#input")).to_be_focused()
    await keys.type("find")
    await page.keyboard.press("Enter")
    await settled(page, 1)
    await expect(page.locator("#input")).to_be_focused()
    await keys.press(".thoughts summary", back=True)
    await expect(page.locator(".thoughts .text")).to_be_visible()
    await keys.press(".call summary")
    await expect(page.locator(".sources")).to_be_visible()
    await keys.press("sup.cite button")
    await expect(page.locator('.sources [data-n="2"]')).to_be_focused()
    await keys.press('[data-action="like"]', "Space")
    await expect(page.locator('[data-action="like"]')).to_have_attribute("aria-pressed", "true")
    await expect(page.locator('[data-action="like"]')).to_be_focused()
    await keys.press('[data-action="regenerate"]')
    await settled(page, 1)
    await keys.press('[data-action="previous"]')
    await expect(page.locator(".stepper")).to_have_text("1/2")
    await keys.press('.question button[aria-label="Edit"]', back=True)
    await expect(page.locator("textarea.edit")).to_be_focused()
    await page.keyboard.press("Control+A")
    await keys.type("say edited")
    await page.keyboard.press("Enter")
    await settled(page, 1)
    await expect(page.locator(".stepper")).to_have_text("3/3")
    await keys.press('#switches [data-plugin="calculator"]')
    await expect(page.locator('[data-plugin="calculator"]').first).to_have_attribute(
        "aria-pressed", "false"
    )
    await keys.press("#open-settings", back=True)
    await keys.press('#settings input[name="temperature"]', "ArrowRight")
    await page.keyboard.press("Escape")
    await expect(page.locator("#open-settings")).to_be_focused()
    await page.keyboard.press("Control+K")
    await expect(page.locator("#search")).to_be_focused()
    await keys.press("#chat-list li button[aria-expanded]")
    await keys.press(".menu button")
    await page.keyboard.press("Control+A")
    await keys.type("renamed")
    await page.keyboard.press("Enter")
    await expect(page.locator("#title")).to_have_text("renamed")
    await keys.press("#theme")
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    await keys.press("#language")
    await expect(page.locator("html")).to_have_attribute("lang", "zh")
    await keys.press("#new-chat", back=True)
    await expect(page.locator("#input")).to_be_focused()
    await keys.press("#chat-list li a", back=True)
    await settled(page, 1)


async def test_a_running_answer_is_stopped_by_the_keyboard(open_browser: OpenBrowser) -> None:
    browsing = await open_browser()
    page = await browsing.open()
    for way in ("Escape", "Tab"):
        async with browsing.server.pace.held(5):
            await page.locator("#input").focus()
            await page.keyboard.type("say This is stopped.")
            await page.keyboard.press("Enter")
            await expect(page.locator("article.running .reply")).to_contain_text("This")
            if way == "Escape":
                await page.keyboard.press("Escape")
            else:
                await Keyboard(page).press("#stop")
            turn = await settled(page, 1 if way == "Escape" else 2)
        await expect(turn.locator(".counts")).to_contain_text("stopped")
        await expect(page.locator("#input")).to_be_focused()
