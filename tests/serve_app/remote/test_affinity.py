"""Requests of one chat get one key, and others get others."""

from collections.abc import Sequence

from moss_tp.engine.request import EngineRequest
from moss_tp.sampling_params import SamplingParams
from serve_app.remote.affinity import BLOCK_TOKENS, FIRST_BLOCKS, RouteKeys

META = [7] * 40
EXAMPLES = list(range(1000, 1000 + FIRST_BLOCKS * BLOCK_TOKENS))  # that many prompts begin with


def request(
    ids: Sequence[int], *, num_shared_tokens: int = 0, salt: str = "", is_continuation: bool = False
) -> EngineRequest:
    return EngineRequest(
        "id",
        ids,
        SamplingParams(),
        salt=salt,
        num_shared_tokens=num_shared_tokens,
        is_continuation=is_continuation,
    )


def prompt_of(chat: int, num_turns: int, turn_tokens: int) -> list[int]:
    return [chat * 1000 + place for place in range(num_turns * turn_tokens)]


def test_a_chat_has_one_key_whatever_its_prompts_and_whoever_asks() -> None:
    one, other = RouteKeys(), RouteKeys()
    key = one.key_of(request([1, 2, 3], salt="ann"), "chat")
    assert other.key_of(request([1, 2, 3, 4, 5], salt="ann", is_continuation=True), "chat") == key
    assert one.key_of(request([1, 2, 3], salt="ann"), "another") != key
    assert one.key_of(request([1, 2, 3], salt="bob"), "chat") != key
    assert "chat" not in key and "ann" not in key


def test_a_raw_prompt_that_goes_on_has_the_key_that_it_had() -> None:
    keys = RouteKeys()
    for turn_tokens in (5, BLOCK_TOKENS - 1, BLOCK_TOKENS, 30, 100):
        chats = [
            {keys.key_of(request(prompt_of(chat, turn, turn_tokens)), "") for turn in range(1, 21)}
            for chat in range(1, 21)
        ]
        assert all(len(each) == 1 for each in chats), turn_tokens
        assert len(set.union(*chats)) == len(chats)


def test_raw_prompts_that_begin_alike_have_keys_of_their_own() -> None:
    keys = RouteKeys()
    prompts = [[*EXAMPLES[:-1], *prompt_of(chat, 1, 40)] for chat in range(1, 21)]
    found = [keys.key_of(request(prompt), "") for prompt in prompts]
    assert len(set(found)) == len(prompts)
    longer = [keys.key_of(request([*prompt, *range(50)]), "") for prompt in prompts]
    assert longer == found


def test_the_shared_instruction_tells_no_prompts_apart_and_the_owner_does() -> None:
    keys = RouteKeys()
    one, other = ([*META, *prompt_of(chat, 1, 40)] for chat in (1, 2))
    found = keys.key_of(request(one, num_shared_tokens=len(META)), "")
    assert keys.key_of(request(other, num_shared_tokens=len(META)), "") != found
    assert keys.key_of(request(one[len(META) :]), "") == found
    assert keys.key_of(request(one[len(META) :], salt="ann"), "") != found


def test_two_ingresses_agree_on_a_prompt_whose_first_blocks_are_whole() -> None:
    one, other = RouteKeys(), RouteKeys()
    first = prompt_of(1, 1, FIRST_BLOCKS * BLOCK_TOKENS)
    longer = [*first, *prompt_of(2, 1, 50)]
    assert one.key_of(request(first), "") == other.key_of(request(longer), "")


def test_a_prompt_of_a_few_tokens_has_no_key() -> None:
    keys = RouteKeys()
    assert keys.key_of(request([1, 2, 3]), "") == ""
    assert keys.key_of(request(META, num_shared_tokens=len(META)), "") == ""


def test_old_prompts_are_forgotten() -> None:
    keys = RouteKeys(max_prompts=2)
    short = prompt_of(1, 1, 20)
    key = keys.key_of(request(short), "")
    for chat in (2, 3):
        keys.key_of(request(prompt_of(chat, 1, 20)), "")
    assert len(keys._by_prompt) == 2
    longer = [*short, *prompt_of(9, 5, 20)]
    assert keys.key_of(request(longer), "") != key  # as in an ingress that never saw it
