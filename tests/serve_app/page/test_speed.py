"""How quick the page is: its first paint, and frames while a long answer comes."""

import pytest
from playwright.async_api import Page, expect

from tests.proof.figures import check
from tests.serve_app.page.browsing import Browsing, session_of, settled, start
from tests.serve_app.page.ingress import Ingress

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="package")]

MAX_PAINT_MS, MAX_FRAME_MS = 300, 50
NUM_CHARACTERS = 10_000
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
LOOK = """window.frames_seen = [];
new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) window.frames_seen.push(duration);
}).observe({ type: "long-animation-frame", buffered: true });"""


async def long_frames(page: Page) -> list[float]:
    """Of those since LOOK, in ms: the browser tells of frames over 50 ms only."""
    await page.wait_for_timeout(200)
    found: list[float] = await page.evaluate("window.frames_seen")
    return found


async def test_a_long_frame_is_noticed(page: Page) -> None:
    """The control of the measurement below."""
    await page.evaluate(LOOK)
    await page.evaluate(
        "requestAnimationFrame(() => { const end = performance.now() + 120;"
        " while (performance.now() < end); })"
    )
    assert max(await long_frames(page)) >= 100


@pytest.mark.chaos
async def test_frames_are_short_while_a_long_answer_comes(
    browsing: Browsing, page: Page, server: Ingress
) -> None:
    """At some 500 characters a second, of which a browser draws what came."""
    text = (PIECE * (NUM_CHARACTERS // len(PIECE) + 1))[:NUM_CHARACTERS]
    defaults = {"max_tokens": 2 * NUM_CHARACTERS}
    made = await page.request.post(f"{server.url}/v1/sessions", data={"defaults": defaults})
    await page.evaluate(f"location.hash = '{(await made.json())['id']}'")
    await expect(page.locator("#welcome")).to_be_hidden()
    await page.evaluate(LOOK)
    server.pace.pause_s = 0.001
    await start(page, f"say {text}")
    await expect(page.locator("article.running .reply h3")).not_to_have_count(0)
    await settled(page, 1)
    assert len((await session_of(page))["turns"][0]["reply"]) > NUM_CHARACTERS - 100
    frames = await long_frames(page)
    longest = max(frames, default=0)
    result = f"{len(frames)} frames over {MAX_FRAME_MS} ms, the longest of {longest:.0f} ms"
    check("page-frames", result, not frames)


@pytest.mark.chaos
async def test_the_first_paint_is_soon(browsing: Browsing) -> None:
    paints = []
    for _ in range(5):
        page = await browsing.open()
        paints.append(
            await page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
        )
        await page.close()
    median = sorted(paints)[2]
    check("page-paint", f"{median:.0f} ms, the median of 5", median < MAX_PAINT_MS)
