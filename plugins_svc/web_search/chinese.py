"""Chinese in GBK and Japanese in EUC, told from the many encodings that a short text is valid in.

Documents are Chinese unless something speaks against it.
"""

import re

LONE_PAIR = re.compile(rb"(?<=[A-Za-z])[\x80-\xff]{2}(?=[A-Za-z])")
_CHINESE_MARKS = frozenset("、。，：；！？（）《》")  # Korean has those of ASCII
_COMMON_HANGUL = frozenset("이다는을에의가은하고한지도로기사를서어아리나인시대습니자있해")


def chinese_or_japanese(sample: bytes) -> str:
    """`gb18030` or `euc_jp`, where `sample` is that beyond doubt; otherwise empty.

    Nearly all pairs of Chinese are hanzi of GB2312. Punctuation (rows A1 to A3) tells nothing, as
    it is that of Japanese too, whose kana have the rows A4 and A5. Pairs of Cyrillic are among the
    rarer hanzi (from D8). A pair alone between ASCII letters may be two letters of `créée`.
    """
    try:
        text = LONE_PAIR.sub(b"", sample).decode("gb18030")
    except UnicodeError:
        return ""
    pairs = [c.encode("gb18030") for c in text if c > "\x7f"]
    pairs = [pair for pair in pairs if not 0xA1 <= pair[0] <= 0xA3 or pair[1] < 0xA1]
    leads = [pair[0] for pair in pairs if len(pair) == 2 and pair[1] > 0xA0]
    hanzi = [lead for lead in leads if 0xB0 <= lead <= 0xF7]
    num_kana = sum(lead in (0xA4, 0xA5) for lead in leads)
    num_common = sum(lead < 0xD8 for lead in hanzi)
    if num_kana > 0.2 * len(pairs) and _is_valid(sample, "euc_jp"):
        return "euc_jp"
    if num_kana > 0.05 * len(pairs) or num_common <= 0.5 * len(hanzi):
        return ""
    # Hangul is within the rows up to C8.
    num_foreign = sum(lead > 0xC8 for lead in hanzi) + sum(c in _CHINESE_MARKS for c in text)
    if num_foreign <= 0.1 * len(hanzi) and _is_korean(sample):
        return ""
    return "gb18030" if len(hanzi) > 0.8 * len(pairs) else ""


def _is_valid(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeError:
        return False
    return True


def _is_korean(sample: bytes) -> bool:
    """Whether many are the commonest syllables: as hanzi, those bytes are rare."""
    hangul = [c for c in sample.decode("cp949", errors="replace") if "\uac00" <= c <= "\ud7a3"]
    return sum(c in _COMMON_HANGUL for c in hangul) > 0.2 * len(hangul)
