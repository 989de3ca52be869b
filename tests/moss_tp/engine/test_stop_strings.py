"""Stop strings are found however the text is split, and no part of one is ever shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_tp.engine.stop_strings import StopStrings

pieces = st.lists(st.text("ab你", max_size=4), max_size=12)
stops = st.lists(st.text("ab你", min_size=1, max_size=4), max_size=3)


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text before the stop string that is complete first, found letter by letter."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(pieces, stops)
def test_the_result_does_not_depend_on_the_split(pieces: list[str], stops: list[str]) -> None:
    search = StopStrings(stops)
    text, is_stopped = expected("".join(pieces), stops)
    shown = ""
    for index, piece in enumerate(pieces):
        more, found = search.push(piece)
        shown += more
        assert text.startswith(shown), "shown, though it is part of a stop string"
        if found:
            assert (shown, is_stopped) == (text, True)
            return
        # Only the beginning of a stop string is held back.
        held = "".join(pieces[: index + 1])[len(shown) :]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
    assert (shown + search.rest(), False) == (text, is_stopped)


@pytest.mark.parametrize(
    ("stops", "pieces", "shown"),
    [
        (["END"], ["a E", "N", "D b"], ["a ", "", ""]),
        (["END"], ["a E", "N", "x"], ["a ", "", "ENx"]),
        (["aab"], ["a", "a", "a", "b"], ["", "", "a", ""]),
        (["abc", "b"], ["abc"], ["a"]),
        (["b", "ab"], ["ab"], [""]),
        (["。\n"], ["好。", "\n你"], ["好", ""]),
    ],
)
def test_by_hand(stops: list[str], pieces: list[str], shown: list[str]) -> None:
    search = StopStrings(stops)
    assert [search.push(piece)[0] for piece in pieces] == shown


def test_a_stop_string_that_ends_in_an_unarmed_piece_is_text() -> None:
    search = StopStrings(["ab"])
    assert search.push("xab", is_armed=False) == ("xab", False)
    assert search.push("a", is_armed=False) == ("", False)
    assert search.push("b!") == ("", True)
