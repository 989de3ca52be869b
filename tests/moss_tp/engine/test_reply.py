"""Replies of one-byte tokens, where characters and stop strings span several tokens."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.outputs import FinishReason
from moss_tp.engine.reply import Piece, Reply
from moss_tp.sampling_params import SamplingParams

EOS = 256


class Bytes:
    """One id per byte, and one id without text."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return bytes(token_id for token_id in ids if token_id != EOS)


def tokens(text: str) -> list[int]:
    return list(text.encode())


def reply(params: SamplingParams | None = None) -> Reply:
    return Reply(params or SamplingParams(), Bytes())


@given(st.text("ab你", max_size=12), st.integers(1, 4), st.sampled_from([None, "你a", "b"]))
def test_pieces_make_up_the_text_before_the_stop(text: str, step: int, stop: str | None) -> None:
    stops = () if stop is None else (stop,)
    one = reply(SamplingParams(stop=stops))
    said = tokens(text)
    pieces: list[Piece] = []
    for start in range(0, len(said), step):
        chunk = said[start : start + step]
        reason: FinishReason | None = "length" if start + step >= len(said) else None
        pieces.append(one.add(chunk, reason))
        if pieces[-1][2] is not None:
            break
    counts, texts, reasons = zip(*pieces, strict=True) if pieces else ((), (), ())
    shown = "".join(texts)
    if stop is not None and stop in text:
        assert shown == text[: text.index(stop)]
        assert reasons[-1] == "stop"
        taken = said[: sum(counts)]
        assert taken == tokens(text[: text.index(stop) + len(stop)]), "up to the stop, not beyond"
    else:
        assert shown == text
        assert all(counts)


def test_a_stop_id_has_no_text_and_held_back_text_is_shown() -> None:
    one = reply(SamplingParams(stop=("abc",)))
    assert one.add(tokens("xab"), None) == (3, "x", None)
    assert one.add([65], "stop") == (1, "ab", "stop")


def test_a_stop_string_in_the_last_token_is_the_reason() -> None:
    one = reply(SamplingParams(stop=("b",)))
    assert one.add(tokens("ab"), "length") == (2, "a", "stop")


def test_an_incomplete_character_at_the_end_is_replaced() -> None:
    assert reply().add(tokens("你")[:2], "length") == (2, "\ufffd", "length")


def test_min_tokens_come_before_a_stop_string_counts() -> None:
    one = reply(SamplingParams(stop=("ab",), min_tokens=3, max_tokens=9))
    assert one.add(tokens("aba"), None) == (3, "ab", None)
    assert one.add(tokens("bab"), None) == (1, "", "stop")
