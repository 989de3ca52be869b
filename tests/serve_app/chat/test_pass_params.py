"""Which sampling parameters act on the first pass, and which on the reply."""

from dataclasses import fields, replace

import pytest

from moss_tp.errors import InvalidRequestError
from moss_tp.sampling_params import SamplingParams
from serve_app.chat.pass_params import reply_params, thoughts_params
from tests.support.chat import Chat

# A value other than the default for each field.
CHANGED = SamplingParams(
    temperature=0.3,
    top_p=0.5,
    top_k=7,
    min_p=0.1,
    repetition_penalty=1.3,
    presence_penalty=0.5,
    frequency_penalty=0.6,
    logit_bias=((300, 2.0),),
    length_penalty=1.5,
    regulation_start=9,
    max_tokens=450,
    min_tokens=400,
    max_time=50,
    seed=8,
    stop=("zzz",),
    stop_token_ids=(400,),
    ignore_eos=True,
    logprobs=2,
    n=3,
    prompt_logprobs=2,
)
BOTH = {"temperature", "top_p", "top_k", "min_p", "repetition_penalty"}
# Set for each pass, whatever the client asks for.
PER_PASS = {"seed", "max_tokens", "min_tokens", "stop_token_ids", "n"}


def test_every_field_is_changed_here() -> None:
    default = SamplingParams()
    for field in fields(SamplingParams):
        assert getattr(CHANGED, field.name) != getattr(default, field.name), field.name


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingParams)])
def test_the_first_pass_takes_five_parameters_and_no_other(name: str) -> None:
    thoughts = thoughts_params(CHANGED, 100, (1, 2))
    expected = CHANGED if name in BOTH else SamplingParams(max_tokens=100, stop_token_ids=(1, 2))
    assert getattr(thoughts, name) == getattr(expected, name)


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingParams)])
def test_the_reply_takes_all_parameters(name: str) -> None:
    expected = replace(CHANGED, n=1)
    assert getattr(reply_params(CHANGED, 1000, 5), name) == getattr(expected, name)


def test_the_reply_ends_at_eom_and_at_the_clients_ids() -> None:
    params = SamplingParams(stop_token_ids=(400, 5))
    assert reply_params(params, 1000, 5).stop_token_ids == (5, 400)
    assert reply_params(replace(params, ignore_eos=True), 1000, 5).stop_token_ids == (400, 5)
    with pytest.raises(InvalidRequestError, match="stop_token_ids"):
        reply_params(SamplingParams(stop_token_ids=tuple(range(100, 164))), 1000, 5)


def test_lengths_are_cut_to_the_room() -> None:
    params = reply_params(CHANGED, 90, 5)
    assert (params.min_tokens, params.max_tokens) == (90, 90)


@pytest.mark.parametrize("name", sorted({f.name for f in fields(SamplingParams)} - {"n"}))
async def test_a_turn_gives_each_pass_its_parameters(chat: Chat, name: str) -> None:
    """Each parameter alone, through a whole turn: min_tokens=400 used to fail in the first pass."""
    default = SamplingParams(max_tokens=500)
    chat.model.reply = lambda prompt: "x" * 600
    await chat.say(params=replace(default, **{name: getattr(CHANGED, name)}))
    thoughts, reply = chat.model.params
    is_in_thoughts = getattr(thoughts, name) == getattr(CHANGED, name)
    assert is_in_thoughts == (name in BOTH)
    if name not in PER_PASS:
        assert getattr(reply, name) == getattr(CHANGED, name)
