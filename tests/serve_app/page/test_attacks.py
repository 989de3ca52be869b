"""Texts that try to become script: in titles, messages, answers, calls and results. None runs."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from playwright.async_api import Page, expect

from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import StoredCall, new_token
from tests.serve_app.page.browsing import Browsing, Watch, settled, start, turns
from tests.serve_app.page.conftest import OpenBrowser
from tests.serve_app.page.ingress import Ingress
from tests.serve_app.rendering.markdown.attacks import attacks
from tests.serve_app.sessions.turns import a_lease, a_turn

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

ATTACKS = sorted(set(attacks()))
CHOSEN = random.Random(14).sample(ATTACKS, 500)
PER_CHAT = 100
MARK = "the first of many"
# Elements and attributes that could run something, and links that lead elsewhere than to the web.
RISKS = """() => {
    const bad = [];
    for (const element of document.querySelectorAll("#turns *, #chat-list *, header *")) {
        const isActive = element.matches("script, style, iframe, object, embed, base, meta, link");
        const names = element.getAttributeNames();
        const listens = names.some((name) => /^(on|style$|srcdoc$|formaction$)/.test(name));
        const isLink = element.matches("a[href]");
        const leads = isLink && !["http:", "https:", "mailto:"].includes(element.protocol);
        if (isActive || listens || leads) bad.push(element.outerHTML);
    }
    return bad;
}"""


async def owner_of(browsing: Browsing) -> str:
    answer = await browsing.context.request.post(f"{browsing.server.url}/v1/login", data={})
    return str((await answer.json())["owner"])


async def store_chats(server: Ingress, owner: str, texts: Sequence[str]) -> list[str]:
    """The uids of chats in which every text is a message, an answer, and a call with its result."""
    store = RedisSessionStore(server.store_url)
    uids = []
    for at in range(0, len(texts), PER_CHAT):
        uid, parent = new_token(), ""
        for number, text in enumerate([MARK, *texts[at : at + PER_CHAT]]):
            items = [{"n": 1, "title": text, "url": text, "snippet": text}]
            calls = (
                StoredCall("1", "Search", text, "done", items, 5),
                StoredCall("2", text[:40], text, "done", text, 5),
            )
            lease = a_lease(uid, owner)
            turn = replace(a_turn(lease.key, text, parent, text), thoughts=text, calls=calls)
            parent = (await store.commit(lease, number, turn)).id
        uids.append(uid)
    await store.close()
    return uids


async def look_at_all(page: Page) -> None:
    """Every fold is opened, so that all of it is drawn."""
    await page.evaluate(
        "document.querySelectorAll('details').forEach((each) => (each.open = true))"
    )
    assert await page.evaluate(RISKS) == []


@pytest.mark.parametrize("policy", ["obeyed", "ignored"])
async def test_nothing_in_a_stored_chat_runs(
    open_browser: OpenBrowser, server: Ingress, policy: str
) -> None:
    """Neither with the page's policy, which would say so, nor without it."""
    browsing = await open_browser(bypass_csp=policy == "ignored")
    uids = await store_chats(server, await owner_of(browsing), CHOSEN)
    page = await browsing.open()
    for uid in uids:
        await page.evaluate(f"location.hash = '{uid}'")
        await expect(turns(page)).to_have_count(PER_CHAT + 1)
        await look_at_all(page)
        shown = await turns(page).locator(".bubble").all_inner_texts()
        assert len(shown) == PER_CHAT + 1
    await page.locator("#search").fill(MARK)
    await expect(page.locator("#chat-list li")).to_have_count(len(uids))


async def test_nothing_in_a_title_runs(open_browser: OpenBrowser, server: Ingress) -> None:
    browsing = await open_browser(bypass_csp=True)
    owner = await owner_of(browsing)
    catalogue = RedisSessionCatalogue(server.store_url)
    titles = [text[:200] for text in CHOSEN]
    made = [catalogue.create(owner, SessionChanges(title=title)) for title in titles]
    uids = [session.uid for session in await asyncio.gather(*made)]
    await catalogue.close()
    page = await browsing.open()
    await expect(page.locator("#chat-list li").first).to_be_attached()
    while await page.locator("#more-chats").is_visible():
        number = await page.locator("#chat-list li").count()
        await page.locator("#more-chats").click()
        await expect(page.locator(f"#chat-list li >> nth={number}")).to_be_attached()
    assert await page.locator("#chat-list li").count() == len(titles)
    await look_at_all(page)
    for uid, title in [*zip(uids, titles, strict=True)][:3]:
        await page.evaluate(f"location.hash = '{uid}'")
        await expect(page.locator("#title")).to_have_text(title)
        await page.locator("#chat-list li.open button").click()
        await page.locator("#chat-list .menu button").last.click()
        await page.locator("#question-no").click()
        await look_at_all(page)


async def test_nothing_in_an_answer_runs_while_it_is_told(
    open_browser: OpenBrowser, server: Ingress
) -> None:
    browsing = await open_browser(bypass_csp=True)
    page = await browsing.open()
    pause_s, server.pace.pause_s = server.pace.pause_s, 0
    try:
        await start(page, "say " + "\n\n".join(CHOSEN[:60]))
        await settled(page, 1)
    finally:
        server.pace.pause_s = pause_s
    await look_at_all(page)


async def test_what_runs_is_noticed(open_browser: OpenBrowser) -> None:
    """The control: by a dialog, the policy, a request to elsewhere, or what is in the page."""

    async def is_noticed(page: Page, watch: Watch, put_in: str, problem: str) -> bool:
        watch.problems.clear()
        await page.evaluate(f"document.getElementById('turns').innerHTML = '{put_in}'")
        for _ in range(100):
            if problem in "\n".join(watch.problems):
                watch.problems.clear()
                return True
            await page.wait_for_timeout(100)
        return False

    attack = "<img src=x onerror=alert(1)>"
    strict, loose = await open_browser(), await open_browser(bypass_csp=True)
    page = await strict.open()
    assert await is_noticed(page, strict.watch, attack, "Content Security Policy")
    assert await page.evaluate(RISKS) != []
    page = await loose.open()
    assert await is_noticed(page, loose.watch, attack, "dialog: 1")
    foreign = "<img src=https://evil.example/x.png>"
    assert await is_noticed(page, loose.watch, foreign, "evil.example")
    link = "<a href=javascript:alert(1)>x</a>"  # which does nothing until it is clicked
    await page.evaluate(f"document.getElementById('turns').innerHTML = '{link}'")
    assert await page.evaluate(RISKS) != []
    for watch in (strict.watch, loose.watch):
        watch.expected = ""  # what still comes of it
        watch.problems.clear()
