"""A deadline bounds the whole turn, whatever hangs, and what a hang leaves behind is cleaned up."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from moss_tp.errors import DeadlineExceededError
from serve_app.chat.turn import TurnDone
from serve_app.errors import IdempotencyInProgressError, SessionBusyError, StoreUnavailableError
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import Session, new_token
from tests.serve_app.store_server import StoreServer
from tests.support.chat import Chat
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins

# Far more than a deadline of these tests, for busy machines, and far less than a nested retry.
BUSY_S = 12
TRY_AGAIN = (SessionBusyError, IdempotencyInProgressError)


@pytest.fixture
async def own_store(own_server: StoreServer) -> AsyncIterator[RedisSessionStore]:
    settings = StoreSettings(lease_s=5, answer_timeout_s=0.5, patience_s=2, commit_patience_s=2)
    store = RedisSessionStore(own_server.url, settings)
    yield store
    await store.close()


@pytest.fixture
def chat(own_store: RedisSessionStore) -> Chat:
    return Chat(own_store, FakeModel(), FakePlugins())


async def say_soon(chat: Chat, user: str, **changes: object) -> Session:
    """The turn of a client that tries again while an earlier one may still run."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await chat.say(user, **changes)
            except TRY_AGAIN:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("max_time_s", [1.2, None])
@pytest.mark.parametrize("key", [None, "a key that is hard to guess"])
async def test_a_store_that_hangs_when_a_turn_begins(
    chat: Chat, own_server: StoreServer, max_time_s: float | None, key: str | None
) -> None:
    first = await chat.say()
    num_prompts = len(chat.model.prompts)
    for uid in (None, first.uid):
        with own_server.stopped():
            start = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                await chat.say("lost", uid=uid, idempotency_key=key, max_time_s=max_time_s)
            assert time.monotonic() - start < BUSY_S
    assert len(chat.model.prompts) == num_prompts
    session = await say_soon(chat, "next", uid=first.uid)
    assert [turn.user for turn in session.turns] == ["你好", "next"]


@pytest.mark.parametrize("max_time_s", [1.5, None])
async def test_a_store_that_hangs_when_a_turn_ends(
    chat: Chat, own_server: StoreServer, max_time_s: float | None
) -> None:
    """Nobody can tell whether the turn is stored; its key does, and it is never there twice."""
    first = await chat.say()
    key = new_token()
    is_replied = asyncio.Event()

    async def wait(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 5:
            is_replied.set()
            await asyncio.sleep(0.05)

    chat.model.wait = wait
    ask = {"uid": first.uid, "idempotency_key": key}
    turn = asyncio.create_task(chat.say("二", max_time_s=max_time_s, **ask))
    await is_replied.wait()
    with own_server.stopped():
        start = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await turn
        assert time.monotonic() - start < BUSY_S
    chat.model.wait = FakeModel().wait
    again = await say_soon(chat, "二", **ask)
    assert [turn.user for turn in again.turns] == ["你好", "二"]
    assert await chat.store.load(first.uid, "ann") == again


async def test_a_store_that_restarts_is_a_delay_at_both_ends(
    chat: Chat, own_server: StoreServer
) -> None:
    first = await chat.say()

    async def restart(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            own_server.kill()
            starting.append(asyncio.create_task(asyncio.to_thread(own_server.start)))

    starting: list[asyncio.Task[None]] = []
    own_server.kill()
    chat.model.wait = restart
    starting.append(asyncio.create_task(asyncio.to_thread(own_server.start)))
    second = await chat.say("二", uid=first.uid)
    assert [turn.user for turn in second.turns] == ["你好", "二"]
    await asyncio.gather(*starting)
    assert len(starting) == 2


async def test_a_prompt_that_takes_too_long(chat: Chat) -> None:
    go_on = threading.Event()

    class SlowCodec(CharCodec):
        def encode(self, text: str) -> list[int]:
            if "slow" in text:
                go_on.wait(60)
            return super().encode(text)

    first = await chat.say()
    chat.codec = SlowCodec()
    start = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        await chat.say("slow", uid=first.uid, max_time_s=0.3)
    assert time.monotonic() - start < BUSY_S
    go_on.set()
    assert len((await chat.say(uid=first.uid)).turns) == 2


async def test_a_reply_that_its_deadline_ended_is_stored(chat: Chat) -> None:
    """Its commit has a moment of its own."""

    async def hang(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            await asyncio.sleep(60)

    chat.model.wait = hang
    *_, done = await chat.events(max_time_s=1)
    assert isinstance(done, TurnDone)
    assert (done.turn.reply, done.turn.finish_reason) == ("tu", "length")
    assert await chat.store.load(done.session.uid, "ann") == done.session


async def test_a_client_that_leaves_a_store_that_hangs(chat: Chat, own_server: StoreServer) -> None:
    first = await chat.say()
    with own_server.stopped():
        turn = asyncio.create_task(chat.say("lost", uid=first.uid))
        await asyncio.sleep(0.3)
        start = time.monotonic()
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert time.monotonic() - start < BUSY_S
    session = await say_soon(chat, "next", uid=first.uid)
    assert [turn.user for turn in session.turns] == ["你好", "next"]


async def test_turns_that_are_cancelled_at_any_moment_leave_nothing(
    chat: Chat, own_server: StoreServer
) -> None:
    first = [await chat.say() for _ in range(5)]
    for number in range(40):
        turns = [asyncio.create_task(chat.say(uid=session.uid)) for session in first]
        await asyncio.sleep(0.0004 * number)
        for turn in turns:
            turn.cancel()
        await asyncio.gather(*turns, return_exceptions=True)
    async with asyncio.timeout(30):
        while own_server.command("KEYS", "*:lease"):
            await asyncio.sleep(0.05)
    assert chat.model.num_running == 0
    for session in first:
        stored = await chat.store.load(session.uid, "ann")
        assert stored is not None
        assert len({turn.key for turn in stored.turns}) == len(stored.turns)
        after = await chat.say(uid=session.uid)
        assert after.turns[:-1] == stored.turns
