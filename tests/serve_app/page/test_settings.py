"""Choices in the page: plugins, sampling, colours, language; what they change, and for how long."""

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.serve_app.page.browsing import Browsing, ask, session_of, settled
from tests.serve_app.page.conftest import OpenBrowser
from tests.serve_app.page.ingress import Ingress
from tests.support.chat_fakes import CharCodec

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

IS_OFF = "- Calculator: disabled."
GROUND = "getComputedStyle(document.body).backgroundColor"


def prompt_of(server: Ingress) -> str:
    """What the model was last asked."""
    return CharCodec().show(server.model.requests[-1].prompt_ids)


async def test_a_plugin_that_is_switched_off_is_off(page: Page, server: Ingress) -> None:
    await ask(page, "hello")
    assert IS_OFF not in prompt_of(server)
    chip = page.locator('#switches [data-plugin="calculator"]')
    await expect(chip).to_have_attribute("aria-pressed", "true")
    await chip.click()
    await expect(chip).to_have_attribute("aria-pressed", "false")
    await expect(chip).to_be_focused()
    await ask(page, "hello", 2)
    assert IS_OFF in prompt_of(server)
    await page.reload()
    await settled(page, 2)
    await expect(chip).to_have_attribute("aria-pressed", "false")
    await page.locator("#open-settings").click()
    switch = page.locator('#settings [data-plugin="calculator"]')
    await expect(switch).not_to_be_checked()
    await switch.check()
    await page.get_by_role("button", name="Done").click()
    await expect(chip).to_have_attribute("aria-pressed", "true")
    await ask(page, "hello", 3)
    assert IS_OFF not in prompt_of(server)


async def test_what_is_chosen_before_a_chat_holds_for_it(page: Page, server: Ingress) -> None:
    await page.locator('#switches [data-plugin="calculator"]').click()
    await ask(page, "hello")
    assert IS_OFF in prompt_of(server)
    plugins = (await session_of(page))["plugins"]
    assert len(plugins) == 3 and "calculator" not in plugins


async def test_sliders_change_the_request(page: Page, server: Ingress) -> None:
    values: dict[str, Any] = {
        "temperature": 1.5,
        "top_p": 0.55,
        "top_k": 7,
        "repetition_penalty": 1.25,
        "max_tokens": 32,
    }
    await ask(page, "hello")
    usual = server.model.requests[-1].params
    await page.locator("#open-settings").click()
    for name, value in values.items():
        slider = page.locator(f'#settings input[name="{name}"]')
        # A reply that nothing bounds shows as the longest that the slider knows.
        await expect(slider).to_have_value(str(min(getattr(usual, name), 2048)))
        await slider.fill(str(value))
        await expect(slider.locator("xpath=../output")).to_have_text(str(value))
    await page.keyboard.press("Escape")
    await ask(page, "count 50", 2)
    params = server.model.requests[-1].params
    assert {name: getattr(params, name) for name in values} == values
    assert (await session_of(page))["defaults"] == values
    await page.reload()
    await settled(page, 2)
    await page.locator("#open-settings").click()
    await expect(page.locator('#settings input[name="top_k"]')).to_have_value("7")
    await page.locator("#reset-sampling").click()
    await expect(page.locator('#settings input[name="top_k"]')).to_have_value(str(usual.top_k))
    await page.keyboard.press("Escape")
    await ask(page, "hello", 3)
    assert server.model.requests[-1].params.top_k == usual.top_k


async def test_the_colours_are_the_systems_or_chosen(open_browser: OpenBrowser) -> None:
    grounds, chosen = {}, {}
    for scheme in ("light", "dark"):
        browsing = await open_browser(color_scheme=scheme)
        page = await browsing.open()
        grounds[scheme] = await page.evaluate(GROUND)
        names, found = [], []
        for _ in range(3):
            await page.locator("#theme").click()
            names.append(await page.locator("#theme").inner_text())
            found.append(await page.evaluate(GROUND))
            await page.reload()
            assert await page.evaluate(GROUND) == found[-1], "it is remembered"
        other = "dark" if scheme == "light" else "light"
        assert names == [f"Colours: {name}" for name in (other, scheme, "system")]
        assert found[1] == found[2] == grounds[scheme]
        chosen[other] = found[0]
    assert grounds["light"] != grounds["dark"]
    assert chosen == grounds


async def test_the_language_is_the_browsers_or_chosen(
    open_browser: OpenBrowser, browsing: Browsing
) -> None:
    chinese = await (await open_browser(locale="zh-CN")).open()
    await expect(chinese.locator("#new-chat")).to_have_text("新对话")
    page = await browsing.open()
    await expect(page.locator("#new-chat")).to_have_text("New chat")
    await page.locator("#language").click()
    await expect(page.locator("html")).to_have_attribute("lang", "zh")
    await expect(page.locator("#new-chat")).to_have_text("新对话")
    await ask(page, "sum")
    await page.reload()
    turn = await settled(page, 1)
    await expect(turn.locator(".call-name")).to_have_text("计算器")
    await expect(turn.locator(".counts")).to_contain_text("个词元")
    await page.locator("#language").click()
    await expect(turn.locator(".call-name")).to_have_text("Calculator")
    await expect(page.locator("html")).to_have_attribute("lang", "en")
