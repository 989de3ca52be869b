"""Encodings of text files: marks, UTF-8, and what is guessed."""

import codecs
import random
import struct
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins_svc.web_search.encodings import (
    CHUNK_BYTES,
    SAMPLE_BYTES,
    UnreadableError,
    decoded,
    encoding_of,
)

SIMPLIFIED = "万里长城全长约两万一千公里。它始建于春秋战国时期，个人所得税的起征点是每月五千元。"
TRADITIONAL = "萬里長城全長約兩萬一千公里。它始建於春秋戰國時期，個人所得稅的起徵點是每月五千元。"
JAPANESE = "これはテストです。図書館は朝九時に開きます。創立者は二人の先生でした。"
KOREAN = "도서관은 아침 아홉 시에 문을 엽니다. 설립자는 두 명의 선생님이었습니다."
FRENCH = "Le café est fermé. La bibliothèque ouvre à neuf heures, l'été aussi."
RUSSIAN = "Библиотека открывается в девять часов. Её основателями были два учителя."


def read(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return "".join(decoded(path, encoding_of(path)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "text"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "gbk", "gb18030"])
@pytest.mark.parametrize(
    "text", [SIMPLIFIED, SIMPLIFIED[:7], SIMPLIFIED[8:12] + "\n", f"abc {SIMPLIFIED}"]
)
def test_chinese(path: Path, encoding: str, text: str) -> None:
    assert read(path, text.encode(encoding)) == text


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_both_orders_of_utf_16(path: Path, mark: bytes) -> None:
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    assert read(path, mark + SIMPLIFIED.encode(encoding)) == SIMPLIFIED
    assert read(path, SIMPLIFIED.encode(encoding)) == SIMPLIFIED, "without a mark"
    assert read(path, FRENCH.encode(encoding)) == FRENCH


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *((TRADITIONAL, "big5"), (TRADITIONAL, "gbk"), (JAPANESE, "shift_jis")),
        *((JAPANESE, "euc_jp"), (KOREAN, "euc_kr"), (FRENCH, "latin-1"), (RUSSIAN, "cp1251")),
        *((RUSSIAN, "koi8-r"), ("café", "latin-1"), ("𠀀𠮷 rare: " + SIMPLIFIED, "gb18030")),
    ],
)
def test_other_encodings(path: Path, text: str, encoding: str) -> None:
    assert read(path, text.encode(encoding)) == text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_utf_8_is_never_guessed(path: Path, text: str) -> None:
    if "\0" not in text:
        data = text.removeprefix("\ufeff").encode()
        assert read(path, data) == data.decode()


def test_a_text_is_recognised_by_its_first_line_that_is_not_ascii(path: Path) -> None:
    text = "plain line\n" * CHUNK_BYTES + SIMPLIFIED
    assert read(path, text.encode("gbk")).endswith(SIMPLIFIED)


def test_a_damaged_byte_leaves_the_rest_readable(path: Path) -> None:
    data = (SIMPLIFIED * 3).encode()
    text = read(path, data[:30] + b"\xff" + data[30:])
    assert text.replace("\ufffd", "") == SIMPLIFIED * 3


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES + 1])
@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "utf-16"])
def test_no_character_is_cut_between_chunks(path: Path, size: int, encoding: str) -> None:
    text = "a" * size + "长城" * 9 + "\n" + SIMPLIFIED
    assert read(path, text.encode(encoding)) == text


@pytest.mark.parametrize(
    "data",
    [
        bytes(range(256)) * 9,
        b"\x7fELF\2\1\1" + bytes(50),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\1\0" + bytes(range(255, 0, -1)),
        b"text\0text" * 50,
        Path(sys.executable).read_bytes()[:SAMPLE_BYTES],
        zlib.compress(random.Random(0).randbytes(5000)),
        b"".join(struct.pack("<d", n / 7) for n in range(999)),
    ],
)
def test_what_is_not_text_is_refused(path: Path, data: bytes) -> None:
    with pytest.raises(UnreadableError, match="binary"):
        read(path, data)
