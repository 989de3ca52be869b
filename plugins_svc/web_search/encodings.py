"""Which encoding a file of text is in: a byte-order mark, then valid UTF-8, then a guess.

A text that can be Chinese is Chinese; the guess is otherwise charset-normalizer's among encodings
that files of people are in. GBK and GB2312 are read as GB18030, which contains them.
"""

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from charset_normalizer import from_bytes

from plugins_svc.web_search.chinese import LONE_PAIR, chinese_or_japanese

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
# What files of people are in; more of them make short texts ambiguous.
_MULTIBYTE = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
_LATIN = ("cp1252", "cp1250")
_OTHER = ("cp1251", "koi8_r", "cp1253", "cp1256", "cp874")
_WESTERN = frozenset(map(chr, range(128))) | frozenset(
    "áàâäãåæçéèêëíìîïñóòôöõøœúùûüßÁÀÂÄÃÅÆÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØŒÚÙÛÜ¿¡ªº°§€£«»“”‘’„–—…·\xa0"
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
    is_utf8 = b"\0" not in start or _is_nearly_utf8(start)
    sample = _first_not_utf8(path) if is_utf8 else start
    return "utf-8" if _is_nearly_utf8(sample) else guess(sample)


def guess(sample: bytes) -> str:
    """The codec of `sample`, which has no mark. UnreadableError for what is not text."""
    has_controls = _has_controls(sample)
    if not has_controls and (known := chinese_or_japanese(sample)):
        return known
    is_binary = has_controls or b"\0" in sample
    # In a short text that may be in a narrow encoding, UTF-16 is unlikely.
    narrow = () if is_binary else _narrow(sample)
    wide = _WIDE if is_binary or len(sample) >= 64 else ()
    for candidates in ((*narrow, *wide), _WIDE):
        best = _best(sample, candidates)
        if best is not None and _is_text(sample.decode(best, errors="replace")):
            return best
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
    """Whole lines from the first that is not ASCII; within a very long one, from such a byte."""
    high = next((i for i, byte in enumerate(data) if byte > 127), 0)
    start = data.rfind(b"\n", max(0, high - SAMPLE_BYTES // 2), high) + 1
    start = start or (0 if high < SAMPLE_BYTES // 2 else high)
    sample = data[start : start + SAMPLE_BYTES]
    if len(sample) < SAMPLE_BYTES:
        return sample
    return sample[: sample.rfind(b"\n") + 1] or sample[:-1]


def _has_controls(sample: bytes) -> bool:
    """Whether there are too many control characters for a text; a log may have a few NULs."""
    return len(sample.translate(None, _CONTROLS)) < len(sample) * (1 - MAX_STRANGE)


def _is_nearly_utf8(sample: bytes) -> bool:
    """Whether few characters are broken, as in a damaged file. No other encoding looks so."""
    text = sample.decode("utf-8", errors="replace")
    num_broken = text.count("\ufffd")
    return not _has_controls(sample) and sum(c > "\x7f" for c in text) >= 6 * num_broken


def _narrow(sample: bytes) -> tuple[str, ...]:
    """The candidates; letters alone amid ASCII, as in `Köln`, are of a Latin alphabet."""
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", LONE_PAIR.sub(b"", sample))]
    is_single = runs.count(1) >= 0.9 * len(runs)
    return _LATIN if is_single else (*_MULTIBYTE, *_LATIN, *_OTHER)


def _best(sample: bytes, candidates: tuple[str, ...]) -> str | None:
    """Charset-normalizer's guess. Where it cannot tell cp1252 from cp1250, the former."""
    matches = from_bytes(sample, cp_isolation=list(candidates))
    best = matches.best()
    if best is not None and best.encoding != "cp1250":
        return best.encoding
    coherence = {match.encoding: match.coherence for match in matches}
    if "cp1252" in candidates and not set(sample.decode("cp1252", errors="replace")) - _WESTERN:
        is_as_likely = best is None or coherence.get("cp1252", -1.0) >= best.coherence
        return "cp1252" if is_as_likely else "cp1250"
    return None if best is None else best.encoding


def _is_text(text: str) -> bool:
    """Whether nearly all of `text` are characters that people write.

    Bytes with zeros among them, read as UTF-16, give many characters such as U+7400.
    """
    kinds = Counter(map(unicodedata.category, text))
    strange = kinds["Cc"] + kinds["Cn"] + kinds["Co"] + text.count("\ufffd")
    strange += sum(c & 0xFF == 0 for c in map(ord, text)) - sum(map(text.count, "\0\u3000\u4e00"))
    strange -= sum(map(text.count, _LAYOUT))
    return strange <= 1 + MAX_STRANGE * len(text)
