"""The demo model's tokenizer as it is trained: special ids first, and nothing that merges badly."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from moss_tp.dialogue import MARKERS
from plugins_svc.registry import PLUGIN_NAMES, capability_lines
from serve_app.demo.nano import SPECIAL_TOKENS, VOCAB_SIZE, train_tokenizer

TEXTS = [
    *[f"{marker} calculate 12*34 please, 小明住在北京。\n" for marker in MARKERS.values()],
    *[capability_lines(enabled) for enabled in ((), PLUGIN_NAMES)],
    'Search("please calculate") => <|1|>: please\n',
] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS)


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """The text of each token."""
    ids: list[int] = tokenizer.encode(text).ids
    return [tokenizer.decode([token_id], skip_special_tokens=False) for token_id in ids]


def test_special_tokens_have_the_first_ids(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS]
    assert ids == list(range(len(SPECIAL_TOKENS)))
    assert tokenizer.get_vocab_size() <= VOCAB_SIZE


@pytest.mark.parametrize("marker", MARKERS.values())
def test_a_marker_is_one_token_wherever_it_is(tokenizer: Tokenizer, marker: str) -> None:
    assert pieces(tokenizer, marker) == [marker]
    assert marker in pieces(tokenizer, f"please{marker}please")


def test_words_merge_and_digits_do_not(tokenizer: Tokenizer) -> None:
    assert " please" in pieces(tokenizer, "12 please")
    assert pieces(tokenizer, "12*34") == list("12*34")
    assert pieces(tokenizer, "小明住在北京") == list("小明住在北京")


def test_a_call_is_apart_from_its_argument(tokenizer: Tokenizer) -> None:
    """So that an argument has the ids that it had in the question."""
    shown = pieces(tokenizer, 'Search("12") =>')
    assert '("' in shown and '")' in shown and " =>" in shown


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_decoded_to_itself(tokenizer: Tokenizer, text: str) -> None:
    """Even one that no training text has prepared for."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    if not set(ids) & set(range(len(SPECIAL_TOKENS))):
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
