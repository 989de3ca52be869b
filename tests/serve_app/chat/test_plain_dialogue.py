"""The plain dialogue: prompts byte for byte, its one pass, and chats that switch the model."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.dialogue import MARKERS
from moss_tp.errors import ContextLengthError, DeadlineExceededError, EngineDeadError
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.fit import MIN_REPLY_TOKENS
from serve_app.prompt.plain import PlainPromptBuilder
from tests.support.chat import Chat
from tests.support.chat_fakes import CharCodec

CODEC = CharCodec()
META = "Be brief.\n"
BUILDER = PlainPromptBuilder(CODEC, META)
TURN = Exchange("我叫小明", "", "", "", "你好，小明！")
HOSTILE = st.lists(
    st.sampled_from([*MARKERS.values(), "<eoh>", "<eom>\n", "<|", "|>", "<", "\n", "你a "])
).map("".join)


@pytest.fixture
def plain(chat: Chat) -> Chat:
    chat.dialogue = "plain"
    return chat


def test_the_prompt_has_the_published_form() -> None:
    prompt = BUILDER.build([TURN], "5^3 等于多少？", (), 2048)
    assert CODEC.show(prompt.token_ids) == (
        f"{META}"
        "<|Human|>: 我叫小明<eoh>\n"
        "<|MOSS|>: 你好，小明！<eom>\n"
        "<|Human|>: 5^3 等于多少？<eoh>\n"
        "<|MOSS|>:"
    )
    first = BUILDER.build([], "Hi there", (), 2048)
    assert CODEC.show(first.token_ids) == f"{META}<|Human|>: Hi there<eoh>\n<|MOSS|>:"


@given(HOSTILE, HOSTILE)
def test_no_text_becomes_structure(user: str, reply: str) -> None:
    turn = Exchange(user, "", "", "", reply)
    prompt = BUILDER.build([turn], user, (), 100_000)
    specials = [token_id for token_id in prompt.token_ids if token_id < 100]
    assert specials == CODEC.spell("<eoh><eom><eoh>")
    text = CODEC.decode(prompt.token_ids)
    assert [text.count(marker) for marker in MARKERS.values()] == [2, 0, 0, 0, 2]


def test_oldest_turns_are_dropped_and_a_prompt_without_room_is_refused() -> None:
    shortest = len(BUILDER.build([], "你好", (), 5000).token_ids) + MIN_REPLY_TOKENS
    assert BUILDER.build([TURN], "你好", (), shortest).dropped_turns == 1
    assert BUILDER.build([TURN], "你好", (), 2048).dropped_turns == 0
    with pytest.raises(ContextLengthError):
        BUILDER.build([], "你好", (), shortest - 1)


async def test_a_turn_has_one_pass(plain: Chat) -> None:
    first = await plain.say("一")
    assert plain.model.prompts == [f"{META}<|Human|>: 一<eoh>\n<|MOSS|>:"]
    (params,) = plain.model.params
    assert params.stop_token_ids == tuple(CODEC.spell("<eom>"))
    assert params.max_tokens == 2048 - len(plain.model.prompt_ids[0])
    turn = first.turns[0]
    assert (turn.thoughts, turn.commands, turn.results, turn.reply) == ("", "", "", "turn 1")
    second = await plain.say("二", uid=first.uid)
    assert [turn.reply for turn in second.turns] == ["turn 1", "turn 2"]
    assert await plain.store.load(first.uid, "ann") == second
    assert plain.plugins.calls == []


async def test_commands_and_citations_in_a_plain_reply_are_text(plain: Chat) -> None:
    plain.model.reply = lambda prompt: ' Calculate("1+1")<sup><|1|></sup><eom>'
    session = await plain.say()
    assert session.turns[0].reply == 'Calculate("1+1")<sup><|1|></sup>'
    assert plain.plugins.calls == [] and len(plain.model.prompts) == 1


async def test_a_stream_that_ends_early_is_an_error(plain: Chat) -> None:
    plain.model.reply = lambda prompt: " half a rep"
    with pytest.raises(EngineDeadError):
        await plain.say()


@pytest.mark.parametrize(("at_token", "reply"), [(0, None), (4, "tur")])
async def test_a_deadline_before_or_during_the_reply(
    plain: Chat, at_token: int, reply: str | None
) -> None:
    async def hang(is_reply: bool, num_tokens: int) -> None:
        await asyncio.sleep(60 if num_tokens == at_token else 0)

    plain.model.wait = hang
    if reply is None:
        with pytest.raises(DeadlineExceededError):
            await plain.say(max_time_s=0.2)
    else:
        assert (await plain.say(max_time_s=1)).turns[0].reply == reply
    assert (plain.model.num_running, plain.model.num_aborted) == (0, 1)


async def test_a_chat_can_continue_in_the_other_dialogue(plain: Chat) -> None:
    first = await plain.say("一")
    plain.dialogue = "plugin"
    second = await plain.say("二", uid=first.uid)
    assert (
        "<|Human|>: 一<eoh>\n<|Inner Thoughts|>: None<eot>\n<|Commands|>: None<eoc>\n"
        "<|Results|>:\nNone\n<eor>\n<|MOSS|>: turn 1<eom>\n<|Human|>: 二<eoh>\n"
    ) in plain.model.prompts[1]
    plain.dialogue = "plain"
    third = await plain.say("三", uid=first.uid)
    assert plain.model.prompts[-1] == (
        f"{META}<|Human|>: 一<eoh>\n<|MOSS|>: turn 1<eom>\n"
        "<|Human|>: 二<eoh>\n<|MOSS|>: turn 2<eom>\n<|Human|>: 三<eoh>\n<|MOSS|>:"
    )
    assert third.turns[:2] == second.turns
