"""Rendering in a real worker process: what it makes, and what it survives."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from serve_app.rendering.cache import BlockCache
from serve_app.rendering.escaped import escaped
from serve_app.rendering.isolated import MAX_CHARS, IsolatedRenderer
from serve_app.rendering.renderer import EscapedRenderer, all_blocks
from serve_app.rendering.supervised import Supervisor
from tests.support.processes import still_alive
from tests.support.waiting import until

TEXT = "# *a*\n\n$x$ <sup><|1|></sup>\n\n- b"
HTML = (
    "<h1><em>a</em></h1>\n",
    '<p><math><mrow><mi>x</mi></mrow></math> <sup class="cite">1</sup></p>\n',
    "<ul>\n<li>b</li>\n</ul>\n",
)
SLOW = "```perl\n" + "m{" * 30_000 + "\n```"  # pygments takes minutes
BOMBS = {
    "emphasis": "*a_" * 20_000,
    "brackets": "[" * 60_000,
    "nested lists": "\n".join(f"{'  ' * depth}- a" for depth in range(250)),
    "nested quotes": "> " * 30_000,
    "code": SLOW,
    "braces": "$" + "{" * 9_000 + "$",
    "fractions": "$$" + r"\frac{" * 1_500 + "$$",
}


@pytest.fixture
async def worker() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    await supervisor.close()


@pytest.fixture
async def renderer(worker: Supervisor) -> IsolatedRenderer:
    return IsolatedRenderer(worker)


def process(worker: Supervisor) -> psutil.Process:
    assert worker.pid is not None
    return psutil.Process(worker.pid)


async def test_a_whole_text_has_all_its_blocks(renderer: IsolatedRenderer) -> None:
    rendered = await renderer.render(TEXT, is_whole=True)
    assert (rendered.blocks, rendered.consumed, rendered.tail) == (HTML, len(TEXT), "")
    assert rendered.is_good


async def test_a_text_that_grows_has_an_open_end(renderer: IsolatedRenderer) -> None:
    rendered = await renderer.render(TEXT, is_whole=False)
    assert rendered.blocks == HTML[:1] and rendered.consumed == 7
    assert rendered.tail == HTML[1] + HTML[2], "the list's line is not complete"
    assert (await renderer.render("", is_whole=False)).tail == ""


async def test_bombs_cost_a_second_and_are_shown_as_text(worker: Supervisor) -> None:
    """All at once, since others wait; in between, an ordinary text has its turn."""
    renderer = IsolatedRenderer(worker)
    good = await renderer.render(TEXT, is_whole=True)
    loop = asyncio.get_running_loop()
    for name, bomb in BOMBS.items():
        began = loop.time()
        rendered = await renderer.render(bomb, is_whole=True)
        assert loop.time() - began < 10, name  # 1 s and a start, on a machine that may be busy
        assert rendered.blocks and rendered.consumed == len(bomb), name
        assert (await renderer.render(f"{TEXT}{name}", is_whole=True)).blocks[0] == good.blocks[0]


async def test_only_the_slow_block_is_shown_as_text(worker: Supervisor) -> None:
    renderer = IsolatedRenderer(worker)
    text = f"*a*\n\n{SLOW}\n\n*b*"
    rendered = await renderer.render(text, is_whole=True)
    first, slow, last = rendered.blocks
    assert (first, last) == ("<p><em>a</em></p>\n", "<p><em>b</em></p>\n")
    assert slow == escaped(SLOW) and not rendered.is_good
    pid = worker.pid
    assert (await renderer.render(text, is_whole=True)).blocks == rendered.blocks
    assert worker.pid == pid, "a text that was too slow is not tried again at once"


async def test_a_block_that_is_too_large_is_shown_as_text(renderer: IsolatedRenderer) -> None:
    large = "*a*\n" * (MAX_CHARS // 4 + 1)
    rendered = await renderer.render(f"*a*\n\n{large}", is_whole=True)
    assert rendered.blocks == ("<p><em>a</em></p>\n", escaped(large))


async def test_a_long_text_of_small_blocks_is_rendered(renderer: IsolatedRenderer) -> None:
    num_blocks = 2 * MAX_CHARS // 400
    rendered = await renderer.render("\n\n".join(["word " * 80] * num_blocks), is_whole=True)
    assert len(rendered.blocks) == num_blocks and rendered.is_good


async def test_a_worker_that_is_killed_is_replaced(worker: Supervisor) -> None:
    renderer = IsolatedRenderer(worker)
    await renderer.render("a", is_whole=True)
    process(worker).kill()
    assert (await renderer.render(TEXT, is_whole=True)).blocks == HTML


async def test_a_worker_that_is_killed_at_work_is_asked_again(worker: Supervisor) -> None:
    renderer = IsolatedRenderer(worker)
    await renderer.render("a", is_whole=True)
    stopped = process(worker)
    stopped.send_signal(signal.SIGSTOP)
    asking = asyncio.create_task(renderer.render(TEXT, is_whole=True))
    await asyncio.sleep(0.1)
    stopped.kill()
    assert (await asking).blocks == HTML


async def test_who_leaves_costs_the_others_nothing(worker: Supervisor) -> None:
    renderer = IsolatedRenderer(worker)
    await renderer.render("a", is_whole=True)
    pid = worker.pid
    for number in range(20):
        asking = asyncio.create_task(renderer.render(f"{TEXT}{number}", is_whole=True))
        await asyncio.sleep(0)
        asking.cancel()
    assert (await renderer.render(TEXT, is_whole=True)).blocks == HTML
    assert worker.pid == pid


async def test_a_worker_that_does_not_start_is_text(caplog: pytest.LogCaptureFixture) -> None:
    for command in (["/nothing/here"], [sys.executable, "-c", ""]):
        renderer = IsolatedRenderer(Supervisor(command=command))
        renderer.open()
        assert (await renderer.render("*a*", is_whole=True)).blocks == ("<p>*a*</p>",)
        assert (await renderer.render("*a*", is_whole=False)).tail == "<p>*a*</p>"
        await renderer.close()
    assert "the rendering worker is lost" in caplog.text


async def test_it_ends_with_its_renderer(worker: Supervisor) -> None:
    renderer = IsolatedRenderer(worker)
    renderer.open()
    await until(lambda: worker.pid is not None)
    running = process(worker)
    asking = asyncio.create_task(renderer.render(SLOW, is_whole=True))
    await asyncio.sleep(0.1)
    await renderer.close()
    assert not still_alive([running], 10)
    await asyncio.gather(asking, return_exceptions=True)
    assert (await renderer.render("*a*", is_whole=True)).blocks == ("<p>*a*</p>",)


PARENT = """
import asyncio, sys
from serve_app.rendering.supervised import Supervisor

async def main() -> None:
    worker = Supervisor(block_s=100, text_s=100)
    await worker.ask("a", True)
    print(worker.pid, flush=True)
    await worker.ask(sys.argv[1], True)
    await asyncio.sleep(100)

asyncio.run(main())
"""


@pytest.mark.parametrize("text", ["idle", SLOW])
async def test_it_ends_with_an_ingress_that_is_killed(text: str) -> None:
    command = (sys.executable, "-c", PARENT, text)
    parent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    worker = psutil.Process(int(await parent.stdout.readline()))
    await asyncio.sleep(0.2)
    parent.kill()
    await parent.wait()
    assert not await asyncio.to_thread(still_alive, [worker], 30)


async def test_its_environment_holds_no_secret(
    worker: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOSS_API_KEY", "secret")
    await worker.ask("a", True)
    environment = await asyncio.to_thread(Path(f"/proc/{worker.pid}/environ").read_bytes)
    assert b"PYTHONPATH" in environment and b"secret" not in environment


async def test_it_loads_no_torch_and_is_small(worker: Supervisor) -> None:
    await worker.ask("a", True)
    maps = await asyncio.to_thread(Path(f"/proc/{worker.pid}/maps").read_text)
    assert "nh3" in maps and not any(name in maps for name in ("torch", "numpy", "_raylet"))
    assert process(worker).memory_info().rss < 100 * 2**20
    assert os.getsid(worker.pid or 0) != os.getsid(0), "Ctrl-C is not for it"


async def test_replies_of_a_session_have_a_time_together(renderer: IsolatedRenderer) -> None:
    texts = ["*a*", *(f"{number}\n{SLOW}" for number in range(3)), "*b*"]
    await renderer.render("a", is_whole=True)  # it has started
    loop = asyncio.get_running_loop()
    began = loop.time()
    blocks = await all_blocks(renderer, texts, 0.5)
    assert loop.time() - began < 5
    assert blocks["*a*"] == ["<p><em>a</em></p>\n"] and blocks["*b*"] == ["<p>*b*</p>"]
    assert await all_blocks(EscapedRenderer(), ["*a*", ""], 1) == {"*a*": ["<p>*a*</p>"], "": []}


async def test_what_was_rendered_is_kept(worker: Supervisor) -> None:
    renderer = IsolatedRenderer(worker)
    renderer.remember(TEXT, ["kept"])
    assert (await renderer.render(TEXT, is_whole=True)).blocks == ("kept",)
    assert (await renderer.render(TEXT, is_whole=False)).blocks == HTML[:1]
    await renderer.render("b", is_whole=True)
    process(worker).suspend()
    assert (await renderer.render("b", is_whole=True)).blocks == ("<p>b</p>\n",)


def test_a_cache_has_a_size() -> None:
    cache = BlockCache(max_bytes=2000)
    for number in range(10):
        cache.put(f"{number}", ("x" * 100,))
        assert cache.get("0") == ("x" * 100,), "what is used stays"
    assert cache.num_bytes <= 2000 and cache.get("1") is None and cache.get("9") is not None
    cache.put("large", ("x" * 1000,))
    assert cache.get("large") is None
    cache.put("short", ("a",), for_s=0)
    assert cache.get("short") is None
    for number in range(10):
        cache.put(f"{number}", ())
    assert cache.num_bytes == 6 * 300
