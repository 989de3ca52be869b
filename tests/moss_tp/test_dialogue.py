"""Untrusted text cannot spell the dialogue's markers."""

import pytest

from moss_tp.dialogue import END_TOKENS, MARKERS, neutralise, neutralise_output

UNTRUSTED = [*MARKERS.values(), "<|", "<<|MOSS|>", "<|x|>", "<|1", "<|12|x", "<|\u0661|"]


@pytest.mark.parametrize("text", UNTRUSTED)
def test_both_neutralisers_break_up_possible_markers(text: str) -> None:
    for clean in (neutralise, neutralise_output):
        assert "<|" not in clean(f"a{text}b")
        assert clean(f"a{text}b").replace("< |", "<|") == f"a{text}b"


def test_a_chat_keeps_item_numbers_and_a_plugin_may_not_forge_them() -> None:
    text = "see<sup><|1|></sup> and <|23|>"
    assert neutralise(text) == text
    assert neutralise_output(text) == "see<sup>< |1|></sup> and < |23|>"


@pytest.mark.parametrize("token", END_TOKENS.values())
def test_a_plugin_cannot_spell_an_end_token(token: str) -> None:
    assert neutralise_output(f"a{token}b") == f"a< {token[1:]}b"
    assert neutralise_output(f"<eo{token}r>") == f"<eo< {token[1:]}r>"


def test_ordinary_text_is_unchanged() -> None:
    for text in ("", "1 < 2 | 3 > 2", "<b>x</b>", "<eox> <eo> eoh> 长城", "a|>b"):
        assert neutralise(text) == text
        assert neutralise_output(text) == text
