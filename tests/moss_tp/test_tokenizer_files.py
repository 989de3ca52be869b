"""Settings in tokenizer files that change, cut or add to the text: none is obeyed."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer

from moss_tp.errors import CheckpointError
from moss_tp.tokenizer import Tokenizer
from tests.support.tiny_moss import SPECIAL_TOKENS, TEXT_TOKENS, write_tokenizer, write_vocab_files

LONG = "一句话。 the  end\r\n" * 20
Fields = dict[str, Any]


def _padding() -> Fields:
    sizes: Fields = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    return {**sizes, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}


def _template() -> Fields:
    special = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    token = {"id": "<|endoftext|>", "ids": [TEXT_TOKENS], "tokens": ["<|endoftext|>"]}
    return {
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": [special, text],
        "special_tokens": {"<|endoftext|>": token},
    }


def _with_prefix_space(fields: Fields) -> None:
    fields["pre_tokenizer"]["add_prefix_space"] = True


def _with_nested_prefix_space(fields: Fields) -> None:
    inner = {**fields["pre_tokenizer"], "add_prefix_space": True}
    digits = {"type": "Digits", "individual_digits": True}
    fields["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, inner]}


def _with_hungry_tokens(fields: Fields) -> None:
    for token in fields["added_tokens"]:
        token.update(lstrip=True, rstrip=True, normalized=True, id=token["id"] + 1)
    hungry = {**fields["added_tokens"][0], "content": "   ", "special": False, "id": TEXT_TOKENS}
    fields["added_tokens"].insert(0, hungry)


TRUNCATION = {"direction": "Right", "max_length": 16, "strategy": "LongestFirst", "stride": 0}
SETTINGS: dict[str, Callable[[Fields], object]] = {
    "truncation": lambda fields: fields.update(truncation=TRUNCATION),
    "padding": lambda fields: fields.update(padding=_padding()),
    "post_processor": lambda fields: fields.update(post_processor=_template()),
    "nfkc": lambda fields: fields.update(normalizer={"type": "NFKC"}),
    "lowercase": lambda fields: fields.update(normalizer={"type": "Lowercase"}),
    "strip": lambda fields: fields.update(
        normalizer={"type": "Strip", "strip_left": True, "strip_right": True}
    ),
    "dropout": lambda fields: fields["model"].update(dropout=0.5),
    "prefix_space": _with_prefix_space,
    "nested_prefix_space": _with_nested_prefix_space,
    "hungry_tokens": _with_hungry_tokens,
}


def changed_tokenizer(directory: Path, change: Callable[[Fields], object]) -> Path:
    """A tokenizer.json that the library itself accepts, with a setting that ours must ignore."""
    write_tokenizer(directory)
    file = directory / "tokenizer.json"
    fields = json.loads(file.read_text("utf-8"))
    change(fields)
    text = json.dumps(fields)
    RawTokenizer.from_str(text)
    file.write_text(text)
    return directory


@pytest.fixture(scope="module", params=SETTINGS)
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    directory = tmp_path_factory.mktemp("tokenizer")
    return Tokenizer.from_dir(changed_tokenizer(directory, SETTINGS[request.param]))


@given(text=st.text() | st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "  ", "é"])).map("".join))
def test_every_text_is_encoded_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert not {tokenizer.special_id(name) for name in SPECIAL_TOKENS} & set(ids)


def test_a_long_text_is_not_cut_and_has_the_usual_ids(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode(LONG)) == LONG
    assert tokenizer.encode("你好 the") == Tokenizer.from_dir(tmp_path).encode("你好 the")
    assert tokenizer.encode("") == []


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))]
)
def test_a_copy_encodes_the_same(
    tmp_path: Path, duplicate: Callable[[Tokenizer], Tokenizer]
) -> None:
    tokenizer = Tokenizer.from_dir(changed_tokenizer(tmp_path, SETTINGS["truncation"]))
    assert duplicate(tokenizer).encode(LONG) == tokenizer.encode(LONG)


def test_tokenizer_config_cuts_nothing(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    limits = {"model_max_length": 4, "truncation": True, "padding": "max_length", "max_length": 4}
    settings = {**limits, "add_bos_token": True, "add_prefix_space": True, "errors": "ignore"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.decode(tokenizer.encode(LONG)) == LONG


def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path) -> None:
    def drop_spaces(fields: Fields) -> None:
        split = {"type": "WhitespaceSplit"}
        parts = [split, {**fields["pre_tokenizer"], "use_regex": False}]
        fields["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}

    with pytest.raises(CheckpointError, match=r"does not keep text: '.*' becomes"):
        Tokenizer.from_dir(changed_tokenizer(tmp_path, drop_spaces))


def test_a_vocabulary_without_some_byte_is_refused(tmp_path: Path) -> None:
    write_vocab_files(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    del vocab["½"], vocab["ä½"], vocab["ä½ł"], vocab["ä½łå¥½"], vocab["å¥½"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not keep text"):
        Tokenizer.from_dir(tmp_path)


def test_text_that_the_model_takes_for_a_special_token_is_refused(tmp_path: Path) -> None:
    """The token is in the vocabulary too, and its letters merge to it."""

    def merge(fields: Fields) -> None:
        start = len(fields["model"]["vocab"]) + len(SPECIAL_TOKENS)
        words = ["<e", "<eo", "<eom"]
        fields["model"]["vocab"] |= {word: start + i for i, word in enumerate(words)}
        fields["model"]["vocab"]["<eom>"] = TEXT_TOKENS + SPECIAL_TOKENS.index("<eom>")
        fields["model"]["merges"] += [["<", "e"], ["<e", "o"], ["<eo", "m"], ["<eom", ">"]]
        fields["pre_tokenizer"]["use_regex"] = False

    with pytest.raises(CheckpointError, match="takes text for the special token <eom>"):
        Tokenizer.from_dir(changed_tokenizer(tmp_path, merge))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_vocab_files_of_another_system(tmp_path: Path, line_end: str, encoding: str) -> None:
    write_vocab_files(tmp_path)
    expected = Tokenizer.from_dir(tmp_path).encode("你好 the")
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        text = (tmp_path / name).read_text("utf-8")
        (tmp_path / name).write_text(text, encoding=encoding, newline=line_end)
    assert Tokenizer.from_dir(tmp_path).encode("你好 the") == expected


def test_a_broken_merge_is_named_with_its_line(tmp_path: Path) -> None:
    write_vocab_files(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\nher\n")
    with pytest.raises(CheckpointError, match=r"merges\.txt:3 is not a pair of tokens: 'her'"):
        Tokenizer.from_dir(tmp_path)
