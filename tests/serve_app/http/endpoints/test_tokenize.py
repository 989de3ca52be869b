"""`POST /tokenize` and `/detokenize` as clients of vLLM know them."""

from typing import Any

import pytest

from tests.serve_app.http.clients import assert_error
from tests.serve_app.http.endpoints.sites.engine_site import EngineSite
from tests.support.chat_fakes import CharCodec
from tests.support.site import Site
from tests.support.tiny_moss import EOS_ID


async def test_text_to_ids_and_back(raw: EngineSite) -> None:
    text = "the 你好 <eom>"
    answer = (await raw.client.post("/tokenize", json={"prompt": text})).json()
    ids = raw.tokenizer.encode(text)
    assert answer == {"count": len(ids), "max_model_len": 128, "tokens": ids, "token_strs": None}
    assert EOS_ID not in ids
    back = await raw.client.post("/detokenize", json={"tokens": ids})
    assert back.json() == {"prompt": text}
    special = await raw.client.post("/detokenize", json={"tokens": [5, EOS_ID]})
    assert special.json()["prompt"].endswith("<eom>")
    empty = await raw.client.post("/tokenize", json={"prompt": ""})
    assert empty.json()["count"] == 0
    assert (await raw.client.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}


async def test_the_texts_of_tokens(raw: EngineSite) -> None:
    body = {"prompt": "the in", "return_token_strs": True, "add_special_tokens": False}
    answer = (await raw.client.post("/tokenize", json=body)).json()
    assert "".join(answer["token_strs"]) == "the in"
    assert len(answer["token_strs"]) == answer["count"]


async def test_messages_are_the_prompt_of_their_chat(site: Site) -> None:
    """The very ids that a chat completion gives to the model."""
    body: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": "two"},
            {"role": "user", "content": "three <eom>"},
        ],
    }
    answer = (await site.client.post("/tokenize", json=body)).json()
    await site.client.post("/v1/chat/completions", json=body)
    assert answer["tokens"] == site.model.prompt_ids[0]
    assert "three" in CharCodec().show(answer["tokens"])
    assert answer["max_model_len"] == 4096


WRONG: list[tuple[str, dict[str, Any], str | None]] = [
    ("/tokenize", {}, "prompt"),
    ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
    ("/tokenize", {"prompt": 5}, "prompt"),
    ("/tokenize", {"messages": []}, "messages"),
    ("/detokenize", {}, "tokens"),
    ("/detokenize", {"tokens": "abc"}, "tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens.0"),
    ("/detokenize", {"tokens": [1.5]}, "tokens.0"),
    ("/detokenize", {"tokens": [True]}, "tokens.0"),
    ("/detokenize", {"tokens": [272]}, "tokens"),
    ("/detokenize", {"tokens": [2**40]}, "tokens.0"),
]


@pytest.mark.parametrize(("path", "body", "param"), WRONG)
async def test_a_wrong_field_is_named(
    raw: EngineSite, path: str, body: dict[str, Any], param: str
) -> None:
    response = await raw.client.post(path, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


async def test_a_body_that_is_too_large(raw: EngineSite) -> None:
    for path, body in (
        ("/tokenize", {"prompt": "a" * 70_000}),
        ("/detokenize", {"tokens": [5] * 40_000}),
    ):
        assert_error(await raw.client.post(path, json=body), 413, None)
    assert_error(
        await raw.client.post("/tokenize", json={"prompt": "a", "model": "x"}),
        404,
        "model_not_found",
    )
