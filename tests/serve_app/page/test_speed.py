"""How quick the page is: its first paint, and frames while a long answer comes."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Page, expect

from tests.proof.figures import check
from tests.serve_app.page.browsing import Browsing, session_of, turns
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

MAX_PAINT_MS, MAX_FRAME_MS = 300, 50
NUM_CHARACTERS = 10_000
RUNS = ("RunTask", "ThreadControllerImpl::RunTask")
PIECE = """### A part

Some *words* about `code` and **others**, of which there are many, and a [link](https://e.org).

```python
def function(argument: int) -> str:
    return "text" + str(argument * 12.5)  # and so on
```

$$\\int_0^1 x^2 dx = \\frac{1}{3}$$

- an item with $a_1 + b_2$
- another item

"""
TRACED = ["toplevel", "devtools.timeline", "__metadata"]


@asynccontextmanager
async def main_thread(page: Page) -> AsyncIterator[list[float]]:
    """The CPU time in ms of each task that the page's main thread runs in the block, on return.

    A frame is such a task. Its time on a busy machine's clock would say more of the machine.
    """
    browser = page.context.browser
    assert browser is not None
    await browser.start_tracing(page=page, categories=TRACED)
    tasks: list[float] = []
    yield tasks
    events = json.loads(await browser.stop_tracing())["traceEvents"]
    mains = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    for event in events:
        if (event["pid"], event["tid"]) in mains and event["name"] in RUNS and "tdur" in event:
            tasks.append(event["tdur"] / 1000)


async def test_a_long_frame_is_noticed(page: Page) -> None:
    """The control of the measurement below."""
    async with main_thread(page) as tasks:
        await page.evaluate("() => { for (let n = 0; n < 5e8; n++); }")
    assert max(tasks) > MAX_FRAME_MS


@pytest.mark.chaos
async def test_frames_are_short_while_a_long_answer_comes(
    browsing: Browsing, page: Page, server: Ingress
) -> None:
    """At some 1,000 characters a second, of which a browser draws what came."""
    text = (PIECE * (NUM_CHARACTERS // len(PIECE) + 1))[:NUM_CHARACTERS]
    defaults = {"max_tokens": 2 * NUM_CHARACTERS}
    made = await page.request.post(f"{server.url}/v1/sessions", data={"defaults": defaults})
    await page.evaluate(f"location.hash = '{(await made.json())['id']}'")
    await expect(page.locator("#welcome")).to_be_hidden()
    server.pace.pause_s = 0.0005
    await page.locator("#input").fill(f"say {text}")
    async with main_thread(page) as tasks:
        await page.locator("#input").press("Enter")
        await expect(turns(page)).to_have_count(1, timeout=120_000)
    assert len((await session_of(page))["turns"][0]["reply"]) > NUM_CHARACTERS - 100
    frames = [task for task in tasks if task > MAX_FRAME_MS]
    result = f"{len(frames)} over {MAX_FRAME_MS} ms of CPU, the longest of {max(tasks):.0f} ms"
    check("page-frames", result, not frames)


PAINT = "performance.getEntriesByName('first-contentful-paint')"


@pytest.mark.chaos
async def test_the_first_paint_is_soon(browsing: Browsing) -> None:
    paints = []
    for _ in range(5):
        page = await browsing.open()
        await page.wait_for_function(f"{PAINT}.length")
        paints.append(await page.evaluate(f"{PAINT}[0].startTime"))
        await page.close()
    median = sorted(paints)[2]
    check("page-paint", f"{median:.0f} ms, the median of 5", median < MAX_PAINT_MS)
