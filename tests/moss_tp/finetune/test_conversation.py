"""Reading the published JSON format, and errors that name the bad conversation."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from moss_tp.dialogue import HUMAN, MOSS, RESULTS, THOUGHTS, Segment, render
from moss_tp.finetune.conversation import (
    ConversationError,
    parse_conversation,
    read_conversations,
)
from tests.support.published_chat import published_chat

DEFAULT = Path(__file__).parents[4] / "shared" / "sft_samples"
SAMPLES = Path(os.environ.get("MOSS_SFT_SAMPLES", DEFAULT))


def test_bodies_are_kept_byte_for_byte() -> None:
    conversation = parse_conversation(published_chat())
    first, second = conversation.turns
    assert [segment.role for segment in first][:2] == [HUMAN, THOUGHTS]
    assert first[3].role == RESULTS
    assert first[3].body == "\nCalculate(\"2+3\") => '5'\n"
    assert second[-1] == Segment("moss", " You are Ann.")


def test_chat_without_plugins_has_two_segments_a_turn() -> None:
    chat = published_chat()
    for turn in chat["chat"].values():
        for key in ("Inner Thoughts", "Commands", "Tool Responses"):
            del turn[key]
    assert [[s.role for s in turn] for turn in parse_conversation(chat).turns] == [
        [HUMAN, MOSS]
    ] * 2


def _without_chat(chat: dict[str, Any]) -> None:
    del chat["chat"]


def _missing_turn(chat: dict[str, Any]) -> None:
    chat["num_turns"] = 3


def _no_end(chat: dict[str, Any]) -> None:
    chat["chat"]["turn_1"]["MOSS"] = "<|MOSS|>: never ends"


def _no_marker(chat: dict[str, Any]) -> None:
    chat["chat"]["turn_2"]["Human"] = "just text"


@pytest.mark.parametrize("spoil", [_without_chat, _missing_turn, _no_end, _no_marker])
def test_bad_conversation_is_named(spoil: Any) -> None:
    chat = published_chat()
    spoil(chat)
    with pytest.raises(ConversationError, match="conversation 7"):
        parse_conversation(chat)


def test_reads_jsonl_json_and_folders(tmp_path: Path) -> None:
    text = json.dumps(published_chat(), ensure_ascii=False)
    (tmp_path / "train.jsonl").write_text(f"{text}\n{text}\n", encoding="utf-8")
    (tmp_path / "one.json").write_text(text, encoding="utf-8")
    assert len(list(read_conversations(tmp_path / "train.jsonl"))) == 2
    assert len(list(read_conversations(tmp_path))) == 1


def test_broken_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps(published_chat()) + '\n{"chat": \n', encoding="utf-8")
    with pytest.raises(ConversationError, match=r"train\.jsonl:2 is not JSON"):
        list(read_conversations(file))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample conversations")
def test_published_samples_round_trip() -> None:
    files = sorted(SAMPLES.glob("*/*.json"))
    assert files
    for file in files:
        published = json.loads(file.read_text(encoding="utf-8"))
        turns = parse_conversation(published).turns
        rendered = [render([segment]) for turn in turns for segment in turn]
        chat = published["chat"]
        numbers = range(1, published["num_turns"] + 1)
        assert rendered == [text for n in numbers for text in chat[f"turn_{n}"].values()]
