"""Events of a streamed reply, and error bodies."""

import pytest

from serve_app.client.events import ReplyEvents, error_message


def test_comments_and_fields_without_data_are_no_events() -> None:
    assert ReplyEvents().feed(b": ping\n\nevent: done\n\n\n") == []


def test_data_is_an_event() -> None:
    body = 'data: {"delta": "你好\u2028\x85"}\n\ndata:{"delta": "a"}\n\n'
    assert ReplyEvents().feed(body.encode()) == [{"delta": "你好\u2028\x85"}, {"delta": "a"}]


@pytest.mark.parametrize(
    ("data", "message"), [("{nonsense", "Expecting"), ("[1]", "not an event"), ("5", "not an")]
)
def test_data_that_is_no_json_object_is_a_value_error(data: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplyEvents().feed(f"data: {data}\n\n".encode())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too long"}}', "too long"),
        (b'{"error": "too long"}', 'the server answered 502: {"error": "too long"}'),
        (b"<html>bad gateway</html>", "the server answered 502: <html>bad gateway</html>"),
        (b"x" * 1000, "the server answered 502: " + "x" * 200),
    ],
)
def test_error_message(body: bytes, message: str) -> None:
    assert error_message(502, body) == message
