"""Reading the published JSON format, and errors that name the bad conversation."""

import json
import os
from codecs import BOM_UTF8
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moss_tp.dialogue import HUMAN, MOSS, RESULTS, THOUGHTS, Segment, render
from moss_tp.errors import CheckpointError
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


def _line(base: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return json.dumps({**(base or published_chat()), **changes}, ensure_ascii=False).encode()


def _said(text: str) -> dict[str, Any]:
    chat = published_chat()
    chat["chat"]["turn_1"]["MOSS"] = f"<|MOSS|>: {text}<eom>\n"
    return chat


@pytest.mark.parametrize(
    "content",
    [
        _line() + b"\n" + _line() + b"\n\n",
        _line() + b"\n\n  \n" + _line(),
        _line() + b"\r\n" + _line() + b"\r\n",
        BOM_UTF8 + _line() + b"\n" + _line(),
        BOM_UTF8 + b"\n" + _line() + b"\n" + _line(),
    ],
)
def test_line_ends_blank_lines_and_a_bom_are_no_matter(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    expected = parse_conversation(published_chat())
    assert list(read_conversations(tmp_path / "train.jsonl")) == [expected, expected]


@settings(deadline=None)  # it writes files
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_only_a_newline_ends_a_line(texts: list[str]) -> None:
    with TemporaryDirectory() as directory:
        file = Path(directory) / "train.jsonl"
        said = ["\u2028\u2029\x85\x1c\x0b", *texts]
        file.write_bytes(b"\n".join(_line(_said(text)) for text in said))
        bodies = [conversation.turns[0][-1].body for conversation in read_conversations(file)]
    assert bodies == [f" {text}" for text in said]


def test_an_empty_file_has_no_conversations(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    assert list(read_conversations(tmp_path / "train.jsonl")) == []


_DEEP = b'{"meta_instruction": ' + b"[" * 10**5 + b"]" * 10**5 + b"}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            _line(_said("长")).decode().encode("gbk"),
            ":2 is not JSON: the text is not UTF-8.*GB18030",
        ),
        (
            _line(_said("x")).replace(b"x", rb"\ud83d"),
            ":2: conversation 7: MOSS of turn_1 has half",
        ),
        (_line(meta_instruction="x").replace(b"x", rb"\udc00"), ":2: .*meta_instruction has half"),
        (_DEEP, ":2 is not JSON: it is nested too deeply"),
        (_line()[:-1], ":2 is not JSON: Expecting"),
        (b'{"a": 1, "a": 2}', ":2 is not JSON: it has two values for the key 'a'"),
        (b"[1]", ":2: a conversation is a JSON object"),
        (_line(meta_instruction=None), ":2: .*meta_instruction is not a text"),
        (_line(chat=[]), ":2: conversation 7"),
        (_line(chat={"turn_1": {}, "turn_2": {}}), ":2: .*turn_1 is empty"),
        (_line(num_turns=0), ":2: .*num_turns is 0, but chat has 2 turns"),
        (_line(num_turns=1), ":2: .*num_turns is 1, but chat has 2 turns"),
        (_line(num_turns=float("inf")), ":2: conversation 7"),
        (_line(num_turns=None), ":2: conversation 7"),
        (_line(num_turns=0).replace(b"0", b"9" * 5000), ":2 is not JSON: .*digits"),
        (b"\xff" * 9, ":2 is not JSON: the text is not"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes(_line() + b"\n" + line + b"\n")
    with pytest.raises(ConversationError, match=rf"train\.jsonl{message}"):
        list(read_conversations(file))


def test_a_bad_line_of_a_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n"chat":\n')
    with pytest.raises(ConversationError, match=r"a\.json:3 is not JSON"):
        list(read_conversations(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_lines_are_refused(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(f"{_line().decode()}\n" * 2, encoding=encoding)
    with pytest.raises(ConversationError, match=r"train\.jsonl.* is (UTF-16|not JSON)"):
        list(read_conversations(file))


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"train.{suffix}"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match=rf"train\.{suffix} is a git-LFS pointer"):
        list(read_conversations(file))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversationError, match=r"none\.jsonl cannot be read: No such file"):
        list(read_conversations(tmp_path / "none.jsonl"))


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
