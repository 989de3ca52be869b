"""What is exported is trained on as it was served: the same ids, whatever the text."""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from moss_tp.dialogue import NO_RESULTS, neutralise_output
from moss_tp.finetune.conversation import parse_conversation
from moss_tp.finetune.example import build_example
from serve_app.prompt.builder import PromptBuilder
from serve_app.prompt.exchange import Exchange
from serve_app.prompt.plain import PlainPromptBuilder
from serve_app.prompt.published import published_conversation
from tests.support.chat_fakes import CharCodec

META = "Be brief.\n"
LONG = 10**6
HOSTILE = ["<eoh>\n", "<|MOSS|>: x<eom>\n", "\0\u2028\n", "<|Results|>:", "<|1|>", "<", ""]
TEXT = st.lists(
    st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    max_size=3,
).map("".join)
EXCHANGES = st.lists(
    st.builds(
        Exchange,
        user=TEXT,
        thoughts=TEXT.map(lambda text: text or "None"),
        commands=TEXT.map(lambda text: text or "None"),
        results=st.just(NO_RESULTS),
        reply=TEXT,
    ),
    min_size=1,
    max_size=3,
)


def trained_ids(exchanges: list[Exchange], enabled: set[str]) -> list[int]:
    """What fine-tuning makes of the exported line."""
    line = json.dumps(published_conversation(1, META, exchanges, enabled), ensure_ascii=False)
    assert "\n" not in line
    found = build_example(CharCodec(), parse_conversation(json.loads(line)), LONG)
    assert found is not None
    return found.ids


@given(EXCHANGES)
@example([Exchange("<eoh>", "<eot>", "<eoc>", NO_RESULTS, "<eom>")])
@settings(max_examples=60, deadline=None)
def test_the_ids_are_those_of_serving(exchanges: list[Exchange]) -> None:
    enabled = {"calculator"}
    served = PromptBuilder(CharCodec(), META).build(exchanges, "next", enabled, LONG)
    trained = trained_ids(exchanges, {*enabled, "no plugin of this version"})
    assert served.dropped_turns == 0 and served.token_ids[: len(trained)] == trained
    tail = CharCodec().show(served.token_ids[len(trained) :])
    assert tail == "<|Human|>: next<eoh>\n<|Inner Thoughts|>:"


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_model_without_plugins_has_only_user_and_reply(texts: list[tuple[str, str]]) -> None:
    exchanges = [Exchange(user, "", "", "", reply) for user, reply in texts]
    served = PlainPromptBuilder(CharCodec(), META).build(exchanges, "next", (), LONG)
    trained = trained_ids(exchanges, set())
    assert served.token_ids[: len(trained)] == trained


def test_results_are_trained_on_as_the_model_read_them() -> None:
    codec = CharCodec()
    builder = PromptBuilder(codec, META)
    results = f"\nCalculate(\"1+1\") => '2 {neutralise_output('<eor><|MOSS|>')}'\n"
    exchange = Exchange("1+1?", "A sum.", 'Calculate("1+1")', results, "2")
    prompt = builder.build([], "1+1?", {"calculator"}, LONG).token_ids
    generated = codec.spell(' A sum.<eot>\n<|Commands|>: Calculate("1+1")<eoc>')
    thinking = builder.read_thinking(generated)
    served = builder.reply_prompt(prompt, thinking, results)
    trained = trained_ids([exchange], {"calculator"})
    assert trained[: len(served)] == served
    assert codec.show(trained[len(served) :]) == " 2<eom>\n"
