"""Logprobs tell tokens as text and as bytes, also those that are no whole character."""

from collections.abc import Sequence

from moss_tp.sampling.row import SampledToken
from serve_app.api.openai.logprobs import logprobs_json


class HalfCharacters:
    """Token 0 is special, 1 and 2 are the halves of é."""

    vocab_size = 3

    def encode(self, text: str) -> list[int]:
        return [1, 2]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        return "<eom>" if ids == [0] and not skip_special else "\ufffd"

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join((b"", b"\xc3", b"\xa9")[i] for i in ids)


def test_bytes_tell_what_text_cannot() -> None:
    tokens = (
        SampledToken(1, -0.25, ((1, -0.25), (2, float("-inf")))),
        SampledToken(0, -1.5),
    )
    assert logprobs_json(tokens, HalfCharacters()) == [
        {
            "token": "\ufffd",
            "logprob": -0.25,
            "bytes": [0xC3],
            "top_logprobs": [
                {"token": "\ufffd", "logprob": -0.25, "bytes": [0xC3]},
                {"token": "\ufffd", "logprob": -9999.0, "bytes": [0xA9]},
            ],
        },
        {"token": "<eom>", "logprob": -1.5, "bytes": list(b"<eom>"), "top_logprobs": []},
    ]
