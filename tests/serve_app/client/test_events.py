"""Parsing of server-sent events and of error bodies."""

import pytest

from serve_app.client.events import error_message, parse_event


@pytest.mark.parametrize("line", ["", ": ping", "event: done"])
def test_a_line_without_data_is_no_event(line: str) -> None:
    assert parse_event(line) is None


def test_a_data_line_is_an_event() -> None:
    assert parse_event('data: {"delta": "你好"}') == {"delta": "你好"}
    assert parse_event('data:{"delta": "a"}') == {"delta": "a"}


def test_data_that_is_not_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        parse_event("data: {nonsense")


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
