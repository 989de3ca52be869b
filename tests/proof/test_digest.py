"""The digest model: equal prompts and seeds give equal replies, also in several goes."""

from dataclasses import replace

from moss_tp.engine.request import EngineRequest
from moss_tp.sampling_params import SamplingParams
from tests.proof.digest import DigestModel, digest_tokenizer

PROMPT = digest_tokenizer().encode("hello <|MOSS|>:")
REQUEST = EngineRequest("r", PROMPT, SamplingParams(max_tokens=999, seed=7))


async def _write(request: EngineRequest) -> tuple[list[int], str, str | None]:
    deltas = [delta async for delta in DigestModel().generate(request)]
    ids = [i for delta in deltas for i in delta.token_ids]
    return ids, "".join(delta.text for delta in deltas), deltas[-1].finish_reason


async def test_a_reply_is_a_hash_of_prompt_and_seed() -> None:
    ids, text, _ = await _write(REQUEST)
    assert text == digest_tokenizer().decode(ids) and len(text.split()) == 10
    other_seed = replace(REQUEST, params=replace(REQUEST.params, seed=8))
    other_prompt = replace(REQUEST, prompt_ids=[*PROMPT[:1], *PROMPT])
    texts = {text, (await _write(other_seed))[1], (await _write(other_prompt))[1]}
    assert len(texts) == 3


async def test_it_goes_on_where_another_one_ended() -> None:
    ids, text, _ = await _write(REQUEST)
    for num_told in (1, 5, len(ids) - 1, len(ids)):
        rest, more, reason = await _write(replace(REQUEST, output_ids=ids[:num_told]))
        assert ids[:num_told] + rest == ids and text.endswith(more)
        assert reason is not None
