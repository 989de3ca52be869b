"""Calibration text in every format, and how sequences are drawn from it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moss_tp.errors import ConfigError
from moss_tp.finetune.conversation import ConversationError, parse_conversation
from moss_tp.finetune.example import build_example
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.text import Sequences, digest, read_sequences
from moss_tp.tokenizer import Tokenizer
from tests.moss_tp.quantize.tiny_run import NUM_CHATS, make_settings
from tests.support.published_chat import published_chat

POSITIONS = 512


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("text")
    make_settings(directory)
    return directory


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_dir(directory / "tiny")


@pytest.fixture
def settings(directory: Path) -> QuantizeSettings:
    return make_settings(directory)


def read(settings: QuantizeSettings, tokenizer: Tokenizer) -> Sequences:
    return read_sequences(settings, tokenizer, POSITIONS)


def test_conversations_are_as_in_fine_tuning(
    settings: QuantizeSettings, tokenizer: Tokenizer
) -> None:
    sequences = read(settings, tokenizer)
    chat = published_chat()
    chat["chat"]["turn_1"]["Human"] = "<|Human|>: I am Ann. 7?<eoh>\n"
    example = build_example(tokenizer, parse_conversation(chat), POSITIONS)
    assert example is not None
    assert tuple(example.ids) in sequences.calibration + sequences.held_out


def test_a_fifth_at_most_is_kept_out(settings: QuantizeSettings, tokenizer: Tokenizer) -> None:
    sequences = read(settings, tokenizer)
    assert len(sequences.held_out) == NUM_CHATS // 5
    assert len(sequences.calibration) == NUM_CHATS - NUM_CHATS // 5
    assert not set(sequences.held_out) & set(sequences.calibration)


def test_the_seed_draws(settings: QuantizeSettings, tokenizer: Tokenizer) -> None:
    few = replace(settings, samples=5, held_out=2)
    first = read(few, tokenizer)
    assert (len(first.calibration), len(first.held_out)) == (5, 1)
    assert read(few, tokenizer) == first
    assert read(replace(few, seed=1), tokenizer) != first
    assert digest(first.calibration) != digest(read(replace(few, seed=1), tokenizer).calibration)


def test_another_file_measures(
    settings: QuantizeSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "held_out.txt"
    file.write_text("the inner the in 你好 " * 40, encoding="utf-8")
    found = read(replace(settings, evaluate=file), tokenizer)
    assert len(found.calibration) == NUM_CHATS
    assert tokenizer.decode(found.held_out[0]) == file.read_text()[: POSITIONS * 9]
    same = read(replace(settings, evaluate=settings.calibration, held_out=4), tokenizer)
    assert len(same.calibration) == NUM_CHATS - 4


def test_text_is_cut_into_pieces(
    settings: QuantizeSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "book"
    file.write_text("".join(f"{number} is a number. " for number in range(200)))
    found = read(replace(settings, calibration=file, length=100), tokenizer)
    lengths = [len(ids) for ids in found.calibration + found.held_out]
    total = len(tokenizer.encode(file.read_text()))
    assert sum(lengths) == total and sorted(lengths)[1:] == [100] * (total // 100)


def test_lines_may_be_text(
    settings: QuantizeSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "lines.jsonl"
    texts = [f"number {number}" for number in range(10)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "\n")
    found = read(replace(settings, calibration=file), tokenizer)
    ids = found.calibration + found.held_out
    assert sorted(tokenizer.decode(one) for one in ids) == sorted(texts)


def test_a_folder_of_conversations(
    settings: QuantizeSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    for number in range(3):
        chat = published_chat() | {"meta_instruction": f"Be kind {number}.\n"}
        (tmp_path / f"{number}.json").write_text(json.dumps(chat))
    found = read(replace(settings, calibration=tmp_path), tokenizer)
    assert len(found.calibration) == 2 and len(found.held_out) == 1


def test_the_same_text_twice_counts_once(
    settings: QuantizeSettings, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    file = tmp_path / "twice.jsonl"
    file.write_text((json.dumps({"text": "the same"}) + "\n") * 9)
    with pytest.raises(ConfigError, match="too little text"):
        read(replace(settings, calibration=file), tokenizer)


@pytest.mark.parametrize(
    ("name", "raw", "error"),
    [
        ("a.jsonl", b'{"text": 1}\n', "a.jsonl:1 is neither a conversation"),
        ("a.jsonl", b"\n{\n", "a.jsonl:2 is not JSON"),
        ("a.txt", b"\xff\xfe", "is not text in UTF-8"),
        ("a.txt", b"", "too little text"),
        ("a.jsonl", b"", "too little text"),
        ("a.json", b"{}", "meta_instruction"),
    ],
)
def test_what_is_no_text_is_refused(
    settings: QuantizeSettings,
    tokenizer: Tokenizer,
    tmp_path: Path,
    name: str,
    raw: bytes,
    error: str,
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises((ConfigError, ConversationError), match=error):
        read(replace(settings, calibration=tmp_path / name), tokenizer)
