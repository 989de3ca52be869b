"""Turns of a chat on a real store: order, isolation, keys, failures and cancellation."""

import asyncio
import threading
from dataclasses import replace

import pytest

from moss_tp.errors import EngineDeadError, InvalidRequestError, QueueFullError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.events import Delta, Done, Thoughts, Usage
from serve_app.chat.turn import TurnDone, TurnLimits
from serve_app.errors import (
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    InvalidFieldError,
    SessionBusyError,
    SessionFullError,
    StoreUnavailableError,
    TurnNotStoredError,
)
from serve_app.sessions.redis import RedisSessionStore, StoreSettings
from serve_app.sessions.session import Session, new_token
from tests.support.chat import Chat
from tests.support.chat_fakes import CharCodec, FakeModel, FakePlugins

KEY = "a key that is hard to guess"


async def test_a_chat_continues_under_its_uid(chat: Chat) -> None:
    first = await chat.say("一")
    assert [turn.reply for turn in first.turns] == ["turn 1"]
    assert first.turns[0].thoughts == "Nothing to do." and first.turns[0].user == "一"
    second = await chat.say("二", uid=first.uid)
    assert second.uid == first.uid
    assert [turn.reply for turn in second.turns] == ["turn 1", "turn 2"]
    assert set(chat.model.session_ids) == {first.uid}
    assert await chat.store.load(first.uid, "ann") == second


@pytest.mark.parametrize("uid", ["", "x", "0" * 31, "0" * 32, "{}" * 16, "\0", "A" * 32, "长" * 32])
async def test_a_uid_that_the_server_did_not_make_starts_a_new_chat(chat: Chat, uid: str) -> None:
    session = await chat.say(uid=uid)
    assert session.uid != uid and len(session.turns) == 1


async def test_another_owners_uid_starts_a_new_chat(chat: Chat) -> None:
    mine = await chat.say("my secret")
    foreign = await chat.say(uid=mine.uid, owner="bob")
    assert foreign.uid != mine.uid and len(foreign.turns) == 1
    assert "my secret" not in "".join(chat.model.prompts[2:])


async def test_an_expired_uid_starts_a_new_chat(store_url: str) -> None:
    store = RedisSessionStore(store_url, StoreSettings(session_ttl_s=0.05))
    chat = Chat(store, FakeModel(), FakePlugins())
    first = await chat.say()
    await asyncio.sleep(0.2)
    second = await chat.say(uid=first.uid)
    assert second.uid != first.uid and len(second.turns) == 1
    await store.close()


async def test_dropped_turns_are_reported(chat: Chat) -> None:
    session = await chat.say()
    for _ in range(8):
        session = await chat.say("长" * 150, uid=session.uid)
    assert len(session.turns) == 9 and session.turns[-1].dropped_turns > 0


@pytest.mark.parametrize("is_reply", [False, True])
@pytest.mark.parametrize("error", [EngineDeadError("dead"), QueueFullError("full"), OSError()])
async def test_a_failed_turn_leaves_no_trace(chat: Chat, is_reply: bool, error: Exception) -> None:
    first = await chat.say()

    async def fail(in_reply: bool, num_tokens: int) -> None:
        if in_reply == is_reply and num_tokens == 3:
            raise error

    chat.model.wait = fail
    with pytest.raises(type(error)):
        await chat.say("lost", uid=first.uid)
    assert await chat.store.load(first.uid, "ann") == first
    chat.model = FakeModel()
    assert len((await chat.say(uid=first.uid)).turns) == 2, "the lease was released"
    assert "lost" not in chat.model.prompts[0]


@pytest.mark.parametrize("is_reply", [False, True])
async def test_a_cancelled_turn_is_aborted_and_not_stored(chat: Chat, is_reply: bool) -> None:
    first = await chat.say()
    is_there = asyncio.Event()

    async def hang(in_reply: bool, num_tokens: int) -> None:
        if in_reply == is_reply and num_tokens == 3:
            is_there.set()
            await asyncio.Event().wait()

    chat.model.wait = hang
    task = asyncio.create_task(chat.say(uid=first.uid))
    await is_there.wait()
    assert chat.model.num_running == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (chat.model.num_running, chat.model.num_aborted) == (0, 1)
    assert await chat.store.load(first.uid, "ann") == first
    chat.model = FakeModel()
    assert len((await chat.say(uid=first.uid)).turns) == 2


async def test_closing_between_two_events_cancels_the_turn(chat: Chat) -> None:
    events = chat.ask()
    assert isinstance(await anext(events), Thoughts)
    assert await anext(events) == Delta(0, "", (132,), ())
    assert await anext(events) == Delta(0, "t", (216,), ())
    await events.aclose()
    assert (chat.model.num_running, chat.model.num_aborted) == (0, 1)
    assert await chat.store.load(chat.model.session_ids[-1], "ann") is None


async def test_a_prompt_is_encoded_off_the_event_loop(chat: Chat) -> None:
    """The codec blocks until the event loop has made progress."""
    has_run, is_encoding = threading.Event(), threading.Event()

    class SlowCodec(CharCodec):
        def encode(self, text: str) -> list[int]:
            if "slow" in text:
                is_encoding.set()
                assert has_run.wait(10), "the event loop is blocked"
            return super().encode(text)

    chat.codec = SlowCodec()
    task = asyncio.create_task(chat.say("slow"))
    while not is_encoding.is_set():
        await asyncio.sleep(0.001)
    assert not task.done()
    has_run.set()
    assert (await task).turns[0].reply == "turn 1"


async def test_a_session_runs_one_turn_at_a_time(chat: Chat) -> None:
    session = await chat.say()
    results = await asyncio.gather(
        *(chat.say(uid=session.uid) for _ in range(10)), return_exceptions=True
    )
    won = [result for result in results if isinstance(result, Session)]
    lost = [result for result in results if isinstance(result, SessionBusyError)]
    assert len(won) >= 1 and len(won) + len(lost) == 10
    stored = await chat.store.load(session.uid, "ann")
    assert stored is not None
    assert [turn.reply for turn in stored.turns] == [f"turn {n + 1}" for n in range(len(won) + 1)]


async def test_a_long_turn_renews_its_lease(store_url: str) -> None:
    store = RedisSessionStore(store_url, StoreSettings(lease_s=0.5))
    chat = Chat(store, FakeModel(), FakePlugins(), TurnLimits(4096, lease_renewal_s=0.1))
    first = await chat.say()

    async def slow(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(1.5 if is_reply and num_tokens == 1 else 0)

    chat.model.wait = slow
    task = asyncio.create_task(chat.say(uid=first.uid))
    await asyncio.sleep(1)
    with pytest.raises(SessionBusyError):
        await chat.say(uid=first.uid)
    assert len((await task).turns) == 2
    await store.close()


async def test_a_turn_that_lost_its_lease_is_not_stored_out_of_order(store_url: str) -> None:
    """The first turn never renews its lease, and another one overtakes it."""
    store = RedisSessionStore(store_url, StoreSettings(lease_s=0.1))
    chat = Chat(store, FakeModel(), FakePlugins(), TurnLimits(4096, lease_renewal_s=60))
    first = await chat.say()
    go_on = asyncio.Event()

    async def slow(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 1:
            await go_on.wait()

    chat.model.wait = slow
    late = asyncio.create_task(chat.say("late", uid=first.uid))
    await asyncio.sleep(0.5)
    other = Chat(store, FakeModel(), FakePlugins())
    second = await other.say("second", uid=first.uid)
    go_on.set()
    with pytest.raises(TurnNotStoredError):
        await late
    assert await store.load(first.uid, "ann") == second
    await store.close()


async def test_a_key_runs_once_and_is_then_replayed(chat: Chat) -> None:
    first = await chat.say("一", idempotency_key=KEY)
    assert await chat.say("一", idempotency_key=KEY) == first
    second = await chat.say("二", uid=first.uid, idempotency_key="2")
    third = await chat.say("三", uid=first.uid)
    assert len(third.turns) == 3
    assert await chat.say("二", uid=first.uid, idempotency_key="2") == second
    with pytest.raises(IdempotencyMismatchError):
        await chat.say("other", uid=first.uid, idempotency_key="2")
    assert len(chat.model.prompts) == 6
    assert (await chat.say("一", idempotency_key=KEY, owner="bob")).uid != first.uid


async def test_a_replay_has_one_event_with_what_was_stored(chat: Chat) -> None:
    key, params = new_token(), SamplingParams(max_tokens=3)
    *_, first = await chat.events(idempotency_key=key, params=params)
    (replay,) = await chat.events(idempotency_key=key, params=params)
    assert isinstance(first, TurnDone) and isinstance(replay, TurnDone)
    assert first.done.finish_reason == "length" and first.usage != Usage()
    assert replay == first


async def test_the_terminal_event_is_the_only_one_that_knows_the_session(chat: Chat) -> None:
    *events, done = await chat.events()
    assert isinstance(done, TurnDone) and not any(isinstance(e, TurnDone | Done) for e in events)
    assert (done.turn.reply, done.turn.finish_reason) == ("turn 1", "stop")
    stored = await chat.store.load(done.session.uid, "ann")
    assert stored == done.session, "it was committed before its end was reported"


async def test_the_owner_and_the_priority_reach_the_engine(chat: Chat) -> None:
    await chat.say(owner="bob", priority=2)
    assert [(r.salt, r.priority) for r in chat.model.requests] == [("bob", 2)] * 2


async def test_a_turn_has_one_choice(chat: Chat) -> None:
    with pytest.raises(InvalidRequestError, match="n:"):
        await chat.say(params=SamplingParams(n=2))
    assert chat.model.requests == []


async def test_a_running_key_is_in_progress(chat: Chat) -> None:
    key = new_token()
    results = await asyncio.gather(
        *(chat.say(idempotency_key=key) for _ in range(8)), return_exceptions=True
    )
    won = [result for result in results if isinstance(result, Session)]
    assert won and all(session == won[0] for session in won)
    assert len(chat.model.prompts) == 2
    lost = [result for result in results if not isinstance(result, Session)]
    assert all(isinstance(result, IdempotencyInProgressError) for result in lost)


async def test_a_failed_key_can_be_retried(chat: Chat) -> None:
    key, is_dead = new_token(), True

    async def die(is_reply: bool, num_tokens: int) -> None:
        if is_reply and is_dead:
            raise EngineDeadError("dead")

    chat.model.wait = die
    with pytest.raises(EngineDeadError):
        await chat.say(idempotency_key=key)
    is_dead = False
    session = await chat.say(idempotency_key=key)
    assert len(session.turns) == 1


async def test_a_key_that_starts_a_chat_must_be_hard_to_guess(chat: Chat) -> None:
    with pytest.raises(InvalidFieldError, match="Idempotency-Key"):
        await chat.say(idempotency_key="1")


async def test_a_full_session_is_refused(chat: Chat) -> None:
    chat.limits = TurnLimits(4096, max_turns=2)
    session = await chat.say()
    await chat.say(uid=session.uid)
    with pytest.raises(SessionFullError):
        await chat.say(uid=session.uid)


async def test_without_a_store_every_turn_fails(chat: Chat) -> None:
    settings = StoreSettings(answer_timeout_s=0.2, patience_s=0.3)
    unreachable = RedisSessionStore("redis://127.0.0.1:1", settings)
    with pytest.raises(StoreUnavailableError):
        await replace(chat, store=unreachable).say()
    assert chat.model.prompts == []
    await unreachable.close()
