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
        *(
            (RUSSIAN, "koi8-r"),
            ("café", "latin-1"),
            ("これは日本語の文章です。東京は日本の首都です。", "euc_jp"),
            ("한국어 문서", "cp949"),
            ("𠀀𠮷 rare: " + SIMPLIFIED, "gb18030"),
        ),
    ],
)
def test_other_encodings(path: Path, text: str, encoding: str) -> None:
    assert read(path, text.encode(encoding)) == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "你好，世界",
            "单位：元",
            "（一）总则",
            "《红楼梦》——曹雪芹",
            "“长城”、“故宫”。",
            "好的，谢谢！",
        ),
        *(
            "电话：010-12345678，地址：北京市海淀区",
            "1、苹果；2、香蕉；3、梨。",
            "价格：￥100元",
        ),
        *("姓名\t年龄\n张三\t20\n李四\t30\n", "今天，我，你，他，都，好，吗？", "函数f(x)=x+1。"),
        "Report 2023: total 1,000 units. " * 20 + "单位：元",
    ],
)
def test_short_chinese_with_much_punctuation(path: Path, text: str) -> None:
    assert read(path, text.encode("gbk")) == text


HANZI = st.integers(0xB0, 0xD6).flatmap(
    lambda lead: st.integers(0xA1, 0xFE).map(lambda trail: bytes((lead, trail)).decode("gbk"))
)
PHRASES = st.tuples(st.text(HANZI, min_size=1, max_size=8), st.sampled_from("，。：；！？、"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PHRASES, min_size=1), st.sampled_from(["", "“", "（", "——", "……", "１"]))
def test_hanzi_and_full_width_punctuation(
    path: Path, phrases: list[tuple[str, str]], before: str
) -> None:
    text = "".join(f"{before}{hanzi}{mark}" for hanzi, mark in phrases)
    assert read(path, text.encode("gbk")) == text


@pytest.mark.parametrize(
    "text",
    [
        *("café à la crème, déjà vu", "très", "créée", "niño", "El niño comió una manzana."),
        *("Straße über Köln", "Räksmörgås på ön", "Perché è così? Più città", FRENCH),
        "España, ¿qué tal? Mañana será otro día.",
        "Le café est très bon et l'été à Paris est agréable. Où êtes-vous allé hier?",
    ],
)
def test_western_letters_that_other_code_pages_lack(path: Path, text: str) -> None:
    assert read(path, text.encode("latin-1")) == text


@pytest.mark.parametrize(
    "text",
    ["Příliš žluťoučký kůň úpěl ďábelské ódy", "Zażółć gęślą jaźń", "Árvíztűrő tükörfúrógép"],
)
def test_central_european_letters(path: Path, text: str) -> None:
    assert read(path, text.encode("cp1250")) == text


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_a_nul_in_a_log_does_not_make_it_binary(path: Path, encoding: str) -> None:
    text = SIMPLIFIED * 3 + "\0" + SIMPLIFIED
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
