"""Turns of a tree: where they continue, whose settings they take, and what is stored with them."""

from dataclasses import asdict, replace

import pytest

from moss_tp.errors import EngineDeadError
from moss_tp.sampling_params import SamplingParams
from plugins_svc.sdk.output import PluginOutput
from serve_app.chat.draft import plain_params, seed_of
from serve_app.chat.turn import TurnDone, TurnRunner
from serve_app.errors import SessionNotFoundError, TurnNotFoundError
from serve_app.sessions.catalogue import SessionChanges
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.sessions.session import new_token
from tests.support.chat import PARAMS, Chat
from tests.support.chat_fakes import think_of

ALL = frozenset({"calculator", "equation_solver", "web_search"})


async def session_with(chat: Chat, changes: SessionChanges) -> str:
    catalogue = RedisSessionCatalogue(chat.store.url)
    session = await catalogue.create("ann", changes)
    await catalogue.close()
    return session.uid


async def test_a_turn_continues_the_active_path(chat: Chat) -> None:
    first = await chat.say("一")
    second = await chat.say("二", uid=first.uid)
    assert [turn.parent for turn in second.turns] == ["", first.turns[0].id]
    assert len({turn.id for turn in second.turns}) == 2
    assert second.tree == second.turns and second.created_ms == first.turns[0].created_ms


async def test_a_sibling_is_made_from_the_turns_on_its_own_path(chat: Chat) -> None:
    """Regenerate and edit: the tree keeps both, and the newer one is active."""
    first = await chat.say("一")
    second = await chat.say("二", uid=first.uid)
    await chat.say("三", uid=first.uid)
    again = await chat.say("二号", uid=first.uid, parent=first.turns[0].id)
    assert [turn.user for turn in again.turns] == ["一", "二号"]
    assert [turn.user for turn in again.tree] == ["一", "二", "三", "二号"]
    assert "三" not in chat.model.prompts[-1] and "二<eoh>" not in chat.model.prompts[-1]
    back = await chat.say("五", uid=first.uid, parent=second.turns[1].id)
    assert [turn.user for turn in back.turns] == ["一", "二", "五"]
    assert await chat.store.load(first.uid, "ann") == back


async def test_an_edited_first_turn_has_no_parent(chat: Chat) -> None:
    first = await chat.say("一")
    edited = await chat.say("壹", uid=first.uid, parent="")
    assert [turn.user for turn in edited.turns] == ["壹"]
    assert [turn.reply for turn in edited.tree] == ["turn 1", "turn 1"]


async def test_a_parent_that_is_not_there_is_refused(chat: Chat) -> None:
    first = await chat.say()
    num_prompts = len(chat.model.prompts)
    for parent in (new_token(), "x"):
        with pytest.raises(TurnNotFoundError):
            await chat.say(uid=first.uid, parent=parent)
    assert len(chat.model.prompts) == num_prompts
    assert len((await chat.say(uid=first.uid)).turns) == 2, "the lease was released"


async def test_a_session_that_must_exist_is_not_made(chat: Chat) -> None:
    mine = await chat.say()
    for uid in (new_token(), "x", None):
        with pytest.raises(SessionNotFoundError):
            await chat.say(uid=uid, must_exist=True)
    with pytest.raises(SessionNotFoundError):
        await chat.say(uid=mine.uid, owner="bob", must_exist=True)
    assert len((await chat.say(uid=mine.uid, must_exist=True)).turns) == 2


async def test_a_key_is_replayed_on_its_own_path(chat: Chat) -> None:
    first = await chat.say("一")
    second = await chat.say("二", uid=first.uid, idempotency_key="2")
    await chat.say("另", uid=first.uid, parent=first.turns[0].id)
    assert await chat.say("二", uid=first.uid, idempotency_key="2") == second


async def test_a_sessions_settings_hold_where_the_request_names_none(chat: Chat) -> None:
    defaults = {"temperature": 0.25, "top_k": 7}
    uid = await session_with(
        chat, SessionChanges(plugins=("equation_solver", "gone"), defaults=defaults)
    )
    await chat.say(uid=uid, enabled=ALL, named=frozenset())
    asked = chat.model.params[-1]
    assert (asked.temperature, asked.top_k, asked.top_p) == (0.25, 7, PARAMS.top_p)
    stored = (await chat.say(uid=uid, enabled=ALL, named=frozenset({"top_k", "plugins"}))).turns
    assert (chat.model.params[-1].temperature, chat.model.params[-1].top_k) == (0.25, PARAMS.top_k)
    assert [turn.make_up["plugins"] for turn in stored] == [["equation_solver"], sorted(ALL)]
    await chat.say(uid=uid, enabled=ALL)
    assert chat.model.params[-1].temperature == PARAMS.temperature, "all are named"


async def test_a_session_enables_no_plugin_that_its_caller_may_not_use(chat: Chat) -> None:
    uid = await session_with(chat, SessionChanges(plugins=("calculator", "equation_solver")))
    allowed = frozenset({"calculator"})
    session = await chat.say(uid=uid, enabled=allowed, named=frozenset())
    assert session.turns[0].make_up["plugins"] == ["calculator"]


async def test_the_seed_is_the_clients_or_follows_from_the_key(chat: Chat) -> None:
    key = new_token()
    session = await chat.say(idempotency_key=key)
    assert session.turns[0].seed == seed_of(key) < 2**63
    mine = await chat.say(uid=session.uid, params=replace(PARAMS, seed=7))
    other = await chat.say(uid=session.uid)
    seeds = [turn.seed for turn in other.turns]
    assert seeds[:2] == [seed_of(key), mine.turns[1].seed] and mine.turns[1].seed == 7
    assert len(set(seeds)) == 3 and len({seed_of(f"{n}") for n in range(1000)}) == 1000
    assert len({params.seed for params in chat.model.params}) == 6, "each pass has its own"


async def test_the_same_key_draws_the_same_however_often_it_is_tried(chat: Chat) -> None:
    """A turn whose first try failed: its seeds are those of the second one."""
    key, is_dead = new_token(), True

    async def die(is_reply: bool, num_tokens: int) -> None:
        if is_reply and is_dead:
            raise EngineDeadError("dead")

    chat.model.wait = die
    with pytest.raises(EngineDeadError):
        await chat.say(idempotency_key=key)
    is_dead = False
    await chat.say(idempotency_key=key)
    seeds = [params.seed for params in chat.model.params]
    assert len(seeds) == 4 and seeds[:2] == seeds[2:]


async def test_a_turn_keeps_its_plugin_calls_usage_and_make_up(chat: Chat) -> None:
    class Replica:
        async def make_up(self) -> dict[str, object]:
            return {"weights": "1a", "dtype": "bfloat16"}

    chat.model.think = think_of('Calculate("1+1"), Solve("x")')
    chat.plugins.answers = {"1+1": PluginOutput(True, ("2",)), "x": ValueError()}
    runner = TurnRunner(chat.store, chat.replier, chat.limits, Replica())
    request = chat.request("二", enabled=frozenset({"calculator", "equation_solver"}))
    events = [event async for event in runner.run(request)]
    done = events[-1]
    assert isinstance(done, TurnDone)
    turn = done.turn
    assert [(c.name, c.argument, c.state, c.output) for c in turn.calls] == [
        ("Calculate", "1+1", "done", "2"),
        ("Solve", "x", "failed", None),
    ]
    assert [call.id for call in turn.calls] == [f"{turn.id}-0-0", f"{turn.id}-0-1"]
    assert turn.usage == asdict(done.usage) and done.usage.completion_tokens > 0
    made = dict(turn.make_up)
    assert len(str(made.pop("prompt"))) == 64
    assert made == {
        "weights": "1a",
        "dtype": "bfloat16",
        "plugins": ["calculator", "equation_solver"],
        "params": plain_params(replace(PARAMS, seed=turn.seed)),
        "max_length": 2048,
        "num_tokens": done.usage.completion_tokens - done.usage.reasoning_tokens,
    }
    assert SamplingParams(**made["params"]) == replace(PARAMS, seed=turn.seed)
    stored = await chat.store.load(done.session.uid, "ann")
    assert stored == done.session


async def test_the_digest_of_a_prompt_is_that_of_its_ids(chat: Chat) -> None:
    first, second = await chat.say("same"), await chat.say("same")
    third = await chat.say("other")
    digests = [session.turns[0].make_up["prompt"] for session in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]
