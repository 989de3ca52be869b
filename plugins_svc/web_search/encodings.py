"""Which encoding a file of text is in: a byte-order mark, then valid UTF-8, then a guess.

The guess is charset-normalizer's among encodings that files of people are in, corrected for short
Chinese texts. GBK and GB2312 are read as GB18030, which contains them.
"""

import codecs
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from charset_normalizer import from_bytes

CHUNK_BYTES = 2**20
SAMPLE_BYTES = 2**16
MAX_STRANGE = 0.02  # of the characters of a text

_MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WIDE = ("utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be")
_CANDIDATES = (  # what files of people are in; more of them make short texts ambiguous
    *("gb18030", "big5", "cp932", "euc_jp", "cp949"),
    *("cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1256", "cp874"),
)
_LAYOUT = "\t\n\r\f\v\b\x1a\x1b"  # 1a ends a file of DOS
_CONTROLS = bytes({*range(32)} - {*_LAYOUT.encode()})


class UnreadableError(Exception):
    """A file has no text that can be read; the message says why, in a few words."""


def encoding_of(path: Path) -> str:
    """The name of a codec. UnreadableError for a file that is not text."""
    with path.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    sample = start if b"\0" in start else _first_not_utf8(path)
    return "utf-8" if _is_nearly_utf8(sample) else guess(sample)


def guess(sample: bytes) -> str:
    """The codec of `sample`, which has no mark. UnreadableError for what is not text."""
    has_zeros = b"\0" in sample
    is_binary = has_zeros or len(sample.translate(None, _CONTROLS)) < len(sample) * 0.98
    # In a short text that may be in a narrow encoding, UTF-16 is unlikely.
    narrow = () if is_binary else _CANDIDATES
    wide = _WIDE if is_binary or len(sample) >= 64 else ()
    for candidates in ((*narrow, *wide), _WIDE):
        best = from_bytes(sample, cp_isolation=list(candidates)).best()
        if best is not None and _is_text(sample.decode(best.encoding, errors="replace")):
            return "gb18030" if _is_chinese(sample, best.encoding) else best.encoding
    raise UnreadableError("binary" if is_binary else "in an unknown encoding")


def decoded(path: Path, encoding: str) -> Iterator[str]:
    """The text in pieces that end with a line, or within a very long one."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    held = ""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            text = held + decoder.decode(chunk)
            end = text.rfind("\n") + 1 or len(text)
            held = text[end:]
            yield text[:end]
    yield held + decoder.decode(b"", final=True)


def _first_not_utf8(path: Path) -> bytes:
    """A sample around the first bytes that are not UTF-8; empty if all are."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            try:
                decoder.decode(chunk, final=len(chunk) < CHUNK_BYTES)
            except UnicodeDecodeError:
                file.seek(max(0, start - SAMPLE_BYTES))
                return _sample(file.read(CHUNK_BYTES + 2 * SAMPLE_BYTES))
            start += len(chunk)
    return b""


def _sample(data: bytes) -> bytes:
    """Whole lines from the first that is not ASCII, or from its first such byte."""
    high = next((i for i, byte in enumerate(data) if byte > 127), 0)
    start = data.rfind(b"\n", 0, high) + 1 or high
    sample = data[start : start + SAMPLE_BYTES]
    if len(sample) < SAMPLE_BYTES:
        return sample
    return sample[: sample.rfind(b"\n") + 1] or sample[:-1]


def _is_nearly_utf8(sample: bytes) -> bool:
    """Whether few characters are broken, as in a damaged file. No other encoding looks so."""
    text = sample.decode("utf-8", errors="replace")
    num_broken = text.count("\ufffd")
    return b"\0" not in sample and sum(c > "\x7f" for c in text) >= 6 * num_broken


def _is_text(text: str) -> bool:
    """Whether nearly all of `text` are characters that people write.

    Bytes with zeros among them, read as UTF-16, give many characters such as U+7400.
    """
    kinds = Counter(map(unicodedata.category, text))
    strange = kinds["Cc"] + kinds["Cn"] + kinds["Co"] + text.count("\ufffd")
    strange += sum(c & 0xFF == 0 for c in map(ord, text)) - sum(map(text.count, "\0\u3000\u4e00"))
    strange -= sum(map(text.count, _LAYOUT))
    return strange <= 1 + MAX_STRANGE * len(text)


def _is_chinese(sample: bytes, guessed: str) -> bool:
    """Whether `sample` is GB2312 after all: short texts are valid in several encodings.

    Nearly all of its pairs are then hanzi of GB2312. Those of Korean too, but only in the rows of
    Hangul.
    """
    if guessed not in ("big5", "cp932", "euc_jp", "cp949"):
        return False
    try:
        pairs = [c.encode("gb18030") for c in sample.decode("gb18030") if c > "\x7f"]
    except UnicodeError:
        return False
    hanzi = [pair[0] for pair in pairs if pair[0] > 0xAF and len(pair) == 2 and pair[1] > 0xA0]
    beyond = sum(lead > 0xC8 for lead in hanzi)
    return len(hanzi) > 0.8 * len(pairs) and (guessed != "cp949" or beyond > 0.1 * len(pairs))
