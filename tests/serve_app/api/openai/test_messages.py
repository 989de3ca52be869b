"""Messages in any sane order become one conversation, and no text of theirs becomes structure."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.dialogue import END_TOKENS, MARKERS, NO_RESULTS
from serve_app.api.openai.messages import Message, read_messages, read_new_message
from serve_app.errors import InvalidFieldError, UnsupportedParameterError
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.exchange import Exchange
from tests.support.chat_fakes import CharCodec

CODEC = CharCodec()
BUILDER = PromptBuilder(CODEC, "Be brief.\n")
WORDS = st.text("abc你 \n", min_size=1, max_size=5)
HOSTILE = st.lists(
    st.sampled_from([*MARKERS.values(), *END_TOKENS.values(), "<|", "<|1|>", "\n", "a", '")'])
).map("".join)


def messages(*given: dict[str, Any]) -> list[Message]:
    return [Message.model_validate(message) for message in given]


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def calling(*calls: tuple[str, str], content: str | None = None) -> dict[str, Any]:
    listed = [
        {"id": call_id, "type": "function", "function": {"name": "f", "arguments": arguments}}
        for call_id, arguments in calls
    ]
    return {"role": "assistant", "content": content, "tool_calls": listed}


def result(call_id: str, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


def test_roles_become_exchanges() -> None:
    read = read_messages(
        messages(
            {"role": "system", "content": "Be kind."},
            user("a"),
            user([{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]),
            {"role": "assistant", "content": "d", "reasoning": "t"},
            {"role": "assistant", "content": "e", "reasoning_content": "u", "plugin_calls": [5]},
            {"role": "developer", "content": "Be short."},
            user("f"),
        )
    )
    assert read.system == "Be kind.\nBe short." and read.so_far is None
    assert read.history == (Exchange("a\nb\nc", "t\nu", "None", NO_RESULTS, "d\ne"),)
    assert read.user == "f"


def test_an_assistant_may_begin() -> None:
    read = read_messages(messages({"role": "assistant", "content": "hi"}, user("a")))
    assert read.history == (Exchange("", "", "None", NO_RESULTS, "hi"),) and read.user == "a"


def test_results_of_tools_go_to_the_last_turn_only() -> None:
    round_ = (calling(("1", '{"x": "p"}'), ("2", '{"x": "q"}')), result("2", "Q"), result("1", "P"))
    read = read_messages(messages(user("a"), *round_))
    commands, results = 'f("p"), f("q")', '\nf("p") =>\nP\nf("q") =>\nQ\n'
    assert read.so_far == Exchange("a", "", commands, results, "") and read.history == ()
    later = read_messages(
        messages(user("a"), *round_, {"role": "assistant", "content": "b"}, user("c"))
    )
    assert later.history == (Exchange("a", "", commands, NO_RESULTS, "b"),)
    assert later.so_far is None


def test_several_rounds_are_one() -> None:
    first = calling(("1", '{"x": "p"}'), content="Let me see.")
    second = calling(("2", '{"x": "q"}'))
    read = read_messages(messages(user("a"), first, result("1", "P"), second, result("2", "Q")))
    assert read.so_far == Exchange(
        "a", "Let me see.", 'f("p"), f("q")', '\nf("p") =>\nP\nf("q") =>\nQ\n', ""
    )


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ('{"x": "a"}', 'f("a")'),
        ('{"x": "say \\"hi\\"\\nnow"}', "f(\"say 'hi' now\")"),
        ("", 'f("")'),
        ("{", 'f("{")'),
        ('{"x": 5}', "f(\"{'x': 5}\")"),
        ("[" * 9, f'f("{"[" * 9}")'),
    ],
)
def test_arguments_become_one_string(arguments: str, command: str) -> None:
    read = read_messages(messages(user("a"), calling(("1", arguments)), result("1", "P")))
    assert read.so_far is not None and read.so_far.commands == command


def test_deep_arguments_are_text() -> None:
    deep = "[" * 100_000
    read = read_messages(messages(user("a"), calling(("1", deep)), result("1", "P")))
    assert read.so_far is not None and len(read.so_far.commands) == len(deep) + 5


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([], "messages"),
        ([{"role": "assistant", "content": "a"}], "messages"),
        ([user("a"), {"role": "system", "content": "b"}], "messages"),
        ([result("1", "P")], "messages.0.tool_call_id"),
        ([user("a"), {"role": "tool", "content": "P"}], "messages.1.tool_call_id"),
        ([user("a"), calling(("1", "")), result("2", "P")], "messages.2.tool_call_id"),
        ([user("a"), calling(("1", ""), ("2", "")), result("2", "P")], "messages"),
        ([user(None)], "messages.0.content"),
        ([user([{"type": "text"}])], "messages.0.content.0.text"),
    ],
)
def test_what_is_no_conversation(given: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(InvalidFieldError) as raised:
        read_messages(messages(*given))
    assert raised.value.param == param
    assert not isinstance(raised.value, UnsupportedParameterError)


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_only_text_is_read(kind: str) -> None:
    with pytest.raises(UnsupportedParameterError):
        read_messages(messages(user([{"type": kind}])))


def test_a_session_takes_one_new_message() -> None:
    assert read_new_message(messages(user("a"))) == "a"
    for wrong in ([user("a"), user("b")], [{"role": "system", "content": "a"}], []):
        with pytest.raises(InvalidFieldError):
            read_new_message(messages(*wrong))


ROLES = st.sampled_from(["system", "developer", "user", "assistant"])
PLAIN = st.lists(st.fixed_dictionaries({"role": ROLES, "content": WORDS}), max_size=12)


@given(PLAIN, WORDS)
def test_every_text_is_kept_in_order(before: list[dict[str, Any]], last: str) -> None:
    given = [*before, user(last)]
    read = read_messages(messages(*given))

    def texts(*roles: str) -> str:
        return "\n".join(message["content"] for message in given if message["role"] in roles)

    assert read.system == texts("system", "developer")
    told = [text for e in read.history for text in (e.user, e.reply)] + [read.user]
    assert "\n".join(filter(None, told)) == texts("user", "assistant")
    assert all(exchange.reply for exchange in read.history), "users' neighbours are joined"
    assert all(exchange.user for exchange in read.history[1:]), "and so are the assistant's"


@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
def test_no_message_becomes_structure(
    system: str, text: str, argument: str, answer: str, thoughts: str
) -> None:
    called = calling(("1", argument), content=text) | {"reasoning": thoughts}
    past = [user(text), called, result("1", answer), {"role": "assistant", "content": text}]
    now = [user(text), called, result("1", answer)]
    read = read_messages(messages({"role": "system", "content": system}, *past, *now))
    assert read.so_far is not None and len(read.history) == 1
    prompt = BUILDER.build(read.history, read.user, (), 100_000, read.system, read.so_far)
    specials = [token_id for token_id in prompt.token_ids if token_id < 100]
    assert specials == CODEC.spell("<eoh><eot><eoc><eor><eom><eoh><eot><eoc><eor>")
    shown = CODEC.decode(prompt.token_ids)
    assert [shown.count(marker) for marker in MARKERS.values()] == [2] * 5
