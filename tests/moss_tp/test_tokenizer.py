"""Text to ids and back, special tokens, and both published file layouts."""

import json
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer

from moss_tp.dialogue import Segment, encode_segment
from moss_tp.errors import CheckpointError
from moss_tp.tokenizer import Tokenizer
from tests.support.tiny_moss import (
    BOS_ID,
    EOS_ID,
    SPECIAL_TOKENS,
    TEXT_TOKENS,
    write_tokenizer,
    write_vocab_files,
)

WRITERS = {"tokenizer.json": write_tokenizer, "vocab.json": write_vocab_files}


@pytest.fixture(scope="module", params=WRITERS)
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    WRITERS[request.param](path)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_dir(directory)


def test_merges_and_special_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("你好 the") == [265, 258]
    assert tokenizer.special_id("<eom>") == tokenizer.eos_id == EOS_ID
    assert tokenizer.special_id("<|endoftext|>") == BOS_ID
    assert tokenizer.vocab_size == TEXT_TOKENS + len(SPECIAL_TOKENS)


@given(st.text())
def test_text_round_trips(text: str) -> None:
    ids = _TOKENIZER.encode(text)
    assert _TOKENIZER.decode(ids) == text
    assert _TOKENIZER.decode_bytes(ids) == text.encode()
    assert b"".join(_TOKENIZER.decode_bytes([i]) for i in ids) == text.encode()


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "a", "<|Human|>:"])).map("".join))
def test_text_never_encodes_to_special_ids(text: str) -> None:
    assert max(_TOKENIZER.encode(text), default=0) < TEXT_TOKENS


def test_encode_releases_the_gil() -> None:
    """With the GIL held, the thread would count once or twice, before and after the call."""
    is_encoding, is_done = threading.Event(), threading.Event()
    count = 0

    def count_wakeups() -> None:
        nonlocal count
        while not is_done.is_set():
            count += is_encoding.is_set()
            time.sleep(0.001)

    thread = threading.Thread(target=count_wakeups)
    thread.start()
    is_encoding.set()
    _TOKENIZER.encode("长" * 500_000)
    is_encoding.clear()
    is_done.set()
    thread.join()
    assert count >= 20


def test_special_tokens_have_no_bytes(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("hi"), tokenizer.eos_id, 10_000]
    assert tokenizer.decode_bytes(ids) == b"hi"
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, skip_special=False) == "hi<eom>"


def test_incomplete_character_is_replaced(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("漢")
    assert tokenizer.decode(ids[:-1]) == "�"


def test_unknown_special_token(tokenizer: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="no token <eox>"):
        tokenizer.special_id("<eox>")
    with pytest.raises(CheckpointError, match="no token the"):
        tokenizer.special_id("the")


def test_dialogue_segment_has_one_end_token(tokenizer: Tokenizer) -> None:
    ids = encode_segment(tokenizer, Segment("human", " 你好<eoh>"))
    assert ids.count(tokenizer.special_id("<eoh>")) == 1
    assert tokenizer.decode(ids, skip_special=False) == "<|Human|>: 你好<eoh><eoh>\n"


def test_config_overrides_the_eos_token(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"eos_token_id": 5}')
    assert Tokenizer.from_dir(tmp_path).eos_id == 5


@pytest.mark.parametrize(
    ("configured", "eos_ids"),
    [
        ("null", (EOS_ID,)),
        ("[]", (EOS_ID,)),
        ("7", (7,)),
        ("[7, 9, 7]", (7, 9)),
        (f"[7, {EOS_ID}]", (EOS_ID, 7)),
    ],
)
def test_eos_ids_of_a_config(tmp_path: Path, configured: str, eos_ids: tuple[int, ...]) -> None:
    """All ids of a list end a reply, as in transformers; `<eom>` is the usual one."""
    write_tokenizer(tmp_path)
    text = f'{{"eos_token_id": {configured}}}'
    (tmp_path / "config.json").write_text(text, encoding="utf-8-sig")
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.eos_ids == eos_ids
    assert tokenizer.eos_id == eos_ids[0]


@pytest.mark.parametrize("configured", ['"<eom>"', "[true]", "[[1]]", "-1", "1.5"])
def test_eos_ids_that_are_none_blame_the_config(tmp_path: Path, configured: str) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(f'{{"eos_token_id": {configured}}}')
    with pytest.raises(CheckpointError, match=r"config\.json: the field 'eos_token_id' is"):
        Tokenizer.from_dir(tmp_path)


def test_added_white_space_is_text(tmp_path: Path) -> None:
    """MOSS has CodeGen's runs of spaces and tabs as added tokens."""
    write_vocab_files(tmp_path)
    (tmp_path / "added_tokens.json").write_text(
        json.dumps({"<eom>": TEXT_TOKENS + 2, "\t\t": TEXT_TOKENS, "    ": TEXT_TOKENS + 1})
    )
    tokenizer = Tokenizer.from_dir(tmp_path)
    ids = tokenizer.encode("a    \t\t<eom>")
    assert ids[1:3] == [TEXT_TOKENS + 1, TEXT_TOKENS]
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "a    \t\t<eom>"


def test_added_white_space_with_a_wrong_id(tmp_path: Path) -> None:
    write_vocab_files(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"\t\t": 999, "<eom>": TEXT_TOKENS}))
    with pytest.raises(CheckpointError, match="should be 999"):
        Tokenizer.from_dir(tmp_path)


def test_special_token_inside_the_vocabulary(tmp_path: Path) -> None:
    """MOSS's `<|endoftext|>` is an entry of vocab.json."""
    write_vocab_files(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, "<|endoftext|>": TEXT_TOKENS}))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<eom>": TEXT_TOKENS + 1}))
    special = {"bos_token": {"content": "<|endoftext|>"}, "additional_special_tokens": ["<eom>"]}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.special_id("<|endoftext|>") == TEXT_TOKENS
    assert tokenizer.decode_bytes([TEXT_TOKENS]) == b""
    assert TEXT_TOKENS not in tokenizer.encode("<|endoftext|>")


def test_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither a tokenizer\.json nor vocab\.json"):
        Tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "config.json"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    write_tokenizer(tmp_path) if name in ("tokenizer.json", "config.json") else write_vocab_files(
        tmp_path
    )
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(CheckpointError, match=rf"{name} is a git-LFS pointer.*git lfs pull"):
        Tokenizer.from_dir(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": 3}'])
def test_broken_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="broken"):
        Tokenizer.from_dir(tmp_path)


def test_tokenizer_that_is_not_byte_level(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    fields = json.loads((tmp_path / "tokenizer.json").read_text())
    RawTokenizer.from_str(json.dumps({**fields, "decoder": None})).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(CheckpointError, match="not a byte-level"):
        Tokenizer.from_dir(tmp_path)


def _tokenizer_for_hypothesis() -> Tokenizer:
    with TemporaryDirectory() as path:
        write_tokenizer(Path(path))
        return Tokenizer.from_dir(path)


_TOKENIZER = _tokenizer_for_hypothesis()
