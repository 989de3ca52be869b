"""JSON in the encodings and with the damage that files have."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.errors import CheckpointError
from moss_tp.json_file import parse_json, read_json

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values), st.sampled_from(ENCODINGS))
def test_every_unicode_encoding_is_read(value: dict[str, Any], encoding: str) -> None:
    assert parse_json(json.dumps(value).encode(encoding)) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n"a": 1,\n}', "line 3"),
        ('{\n"a": "中文"}'.encode("gbk"), "line 2: the text is not UTF-8"),
        (b'{"a": 1, "a": 2}', "two values for the key 'a'"),
        (b'{"b": {"a": 1, "a": null}}', "two values for the key 'a'"),
        (b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'["a"]', "is not a JSON object"),
        (b"", "line 1"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_json(file)
    assert str(file) in str(caught.value)


def test_a_key_may_repeat_its_value() -> None:
    assert parse_json(b'{"a": 1, "a": 1}') == {"a": 1}


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_json(tmp_path)


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(CheckpointError, match=r"config\.json is a git-LFS pointer.*git lfs pull"):
        read_json(file)
