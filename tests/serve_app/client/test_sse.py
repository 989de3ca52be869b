"""Server-sent events by their own rules: line ends, fields, and bytes that are cut anywhere."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.client.sse import EventStreamReader, ServerSentEvent

# Ends of lines for str.splitlines, but not in an event stream.
NOT_LINE_ENDS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"
TEXTS = st.text(st.sampled_from("ab: 你🦊" + NOT_LINE_ENDS), min_size=1, max_size=8)
LINE_ENDS = st.sampled_from(["\n", "\r", "\r\n"])
PLACES = st.lists(st.integers(min_value=0), max_size=6)
FRAGMENTS = st.sampled_from(
    [
        *("\n", "\r", "\r\n", "\n\n", "\r\r", ":", " ", "data", "data:", "data: ", "event:", "id:"),
        *("id: 7", "id: \0", "event: done", "retry: 5", ": ping", "你", "🦊", "\ufeff", "\0", "x"),
        *NOT_LINE_ENDS,
    ]
).map(str.encode)
BODIES = st.lists(FRAGMENTS | st.binary(max_size=2), max_size=30).map(b"".join)


def read(chunks: list[bytes]) -> list[ServerSentEvent]:
    reader = EventStreamReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def as_the_standard_says(body: bytes) -> list[ServerSentEvent]:
    """The same, on the whole body at once and line by line."""
    text = body.decode("utf-8", errors="replace").removeprefix("\ufeff")
    events = []
    data: list[str] = []
    kind = last_id = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if line == "":
            if "\n".join(data):
                events.append(ServerSentEvent("\n".join(data), kind or "message", last_id))
            data, kind = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@given(st.lists(TEXTS, max_size=4), LINE_ENDS, PLACES)
def test_events_of_our_server_arrive_whole_wherever_they_are_cut(
    texts: list[str], end: str, places: list[int]
) -> None:
    sent = [json.dumps({"delta": text}, ensure_ascii=False) for text in texts]
    body = "".join(f"data: {data}{end}{end}: ping{end}{end}" for data in sent).encode()
    assert [event.data for event in read(cut(body, places))] == sent
    assert [event.data for event in read([bytes([byte]) for byte in body])] == sent


@given(BODIES, PLACES)
def test_any_bytes_cut_anywhere_are_read_as_the_standard_says(
    body: bytes, places: list[int]
) -> None:
    expected = as_the_standard_says(body)
    assert read([body]) == expected
    assert read(cut(body, places)) == expected
    assert read([bytes([byte]) for byte in body]) == expected


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_an_event_is_given_out_as_soon_as_its_empty_line_is_there(end: str) -> None:
    """A CR that may be half a line end is no reason to wait for the next bytes."""
    assert [e.data for e in EventStreamReader().feed(f"data: a{end}{end}".encode())] == ["a"]


def test_fields() -> None:
    body = (
        b"\xef\xbb\xbfdata: a\ndata:b\ndata\ndata:  c\nid: 1\nevent: done\n\nid: 2\n\ndata: d\n\n"
    )
    assert read([body]) == [
        ServerSentEvent("a\nb\n\n c", "done", "1"),
        ServerSentEvent("d", "message", "2"),
    ]


def test_an_event_without_its_empty_line_is_dropped() -> None:
    assert read([b'data: {"delta": "half"}\n']) == []
