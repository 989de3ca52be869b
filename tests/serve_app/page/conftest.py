"""One server and one browser for all tests of the page, in one event loop; for each test a context
of its own, which has to end without an error, a refusal of the policy or a foreign request."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from serve_app.rendering.isolated import IsolatedRenderer
from tests.serve_app.page.browsing import WIDE, Browsing, Watch
from tests.serve_app.page.ingress import Ingress

PATIENCE_MS = 15_000
OpenBrowser = Callable[..., Awaitable[Browsing]]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def chromium() -> AsyncIterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    async with async_playwright() as playwright:
        path = shutil.which("chromium")
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def renderer() -> AsyncIterator[IsolatedRenderer]:
    made = IsolatedRenderer()
    made.open()
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server(store_url: str, renderer: IsolatedRenderer) -> AsyncIterator[Ingress]:
    made = Ingress(store_url, renderer)
    await made.start()
    yield made
    await made.die()


@pytest_asyncio.fixture(loop_scope="package")
async def open_browser(chromium: Browser, server: Ingress) -> AsyncIterator[OpenBrowser]:
    """Opens browsers, each another visitor's; options are those of a context of playwright."""
    opened: list[Browsing] = []

    async def open_one(of: Ingress = server, **options: object) -> Browsing:
        given = {"viewport": WIDE, "locale": "en-US", **options}
        context = await chromium.new_context(**given)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_MS)
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        watch = Watch(of.origin)
        context.on("page", watch.tab)
        opened.append(Browsing(context, of, watch))
        return opened[-1]

    yield open_one
    for each in opened:
        await each.context.close()
    assert not [problem for each in opened for problem in each.watch.problems]


@pytest_asyncio.fixture(loop_scope="package")
async def browsing(open_browser: OpenBrowser) -> Browsing:
    return await open_browser()


@pytest_asyncio.fixture(loop_scope="package")
async def page(browsing: Browsing) -> Page:
    return await browsing.open()
