"""The operator's hook: plain or async, and refused text where it fails."""

import asyncio
import logging
import sys
import time
from pathlib import Path

import pytest

from moss_tp.errors import ConfigError
from serve_app.errors import ContentRefusedError
from serve_app.moderation.hook import FAILURE, Direction, Moderation, load_moderation


def no_bombs(text: str, direction: Direction) -> str | None:
    return f"bombs, {direction}" if "bomb" in text else None


async def no_bombs_async(text: str, direction: Direction) -> str | None:
    await asyncio.sleep(0)
    return no_bombs(text, direction)


@pytest.mark.parametrize("hook", [no_bombs, no_bombs_async, lambda t, d: no_bombs_async(t, d)])
async def test_a_hook_passes_or_refuses(hook: object) -> None:
    moderation = Moderation(hook)  # type: ignore[arg-type]
    assert await moderation.reason("a poem", "out") == ""
    assert await moderation.reason("a bomb", "out") == "bombs, out"
    await moderation.check_input("a poem")
    with pytest.raises(ContentRefusedError, match="the text was refused: bombs, in"):
        await moderation.check_input("a bomb")


async def test_no_text_is_no_question() -> None:
    assert await Moderation(lambda text, direction: "always").reason("", "in") == ""


def fails(text: str, direction: Direction) -> str | None:
    raise ValueError(f"secret: {text}")


async def hangs(text: str, direction: Direction) -> str | None:
    await asyncio.sleep(60)
    return None


def blocks(text: str, direction: Direction) -> str | None:
    time.sleep(0.5)
    return None


@pytest.mark.parametrize("hook", [fails, hangs, blocks, lambda text, direction: True])
async def test_a_hook_that_fails_refuses_and_its_log_shows_no_text(
    hook: object, caplog: pytest.LogCaptureFixture
) -> None:
    moderation = Moderation(hook, timeout_s=0.05)  # type: ignore[arg-type]
    started = time.monotonic()
    with caplog.at_level(logging.WARNING):
        assert await moderation.reason("my diary", "in") == FAILURE
    assert time.monotonic() - started < 0.4
    assert "moderation hook" in caplog.text and "my diary" not in caplog.text


async def test_a_reason_is_never_empty_and_never_long() -> None:
    assert await Moderation(lambda text, direction: "").reason("x", "in")
    assert len(await Moderation(lambda text, direction: "r" * 5000).reason("x", "in")) == 200


async def test_a_request_whose_time_is_over_is_refused() -> None:
    assert await Moderation(no_bombs_async).reason("a poem", "in", within_s=-1.0) == FAILURE


async def test_a_hook_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rules.py").write_text("def check(text, direction):\n    return 'no'\nx = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_moderation(None) is None
    moderation = load_moderation("my_rules:check")
    assert moderation is not None and await moderation.reason("a", "in") == "no"
    for path, said in (
        ("my_rules", "MODULE:FUNCTION"),
        (":check", "MODULE:FUNCTION"),
        ("my_rules:other", "cannot be imported"),
        ("no_such_rules:check", "PYTHONPATH"),
        ("my_rules:x", "not a function"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_moderation(path)
    sys.modules.pop("my_rules")
