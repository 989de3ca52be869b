"""Data of events, and error bodies."""

import pytest

from serve_app.client.events import error_code, error_message, parse_event


@pytest.mark.parametrize(
    ("data", "message"), [("{nonsense", "Expecting"), ("[1]", "not an event"), ("5", "not an")]
)
def test_data_that_is_no_json_object_is_a_value_error(data: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_event(data)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"error": {"message": "too long", "code": "long"}}', "too long", "long"),
        (b'{"error": {"message": "too long", "code": null}}', "too long", ""),
        (b'{"error": "too long"}', 'the server answered 502: {"error": "too long"}', ""),
        (b"<html>bad gateway</html>", "the server answered 502: <html>bad gateway</html>", ""),
        (b"x" * 1000, "the server answered 502: " + "x" * 200, ""),
    ],
)
def test_error_message_and_code(body: bytes, message: str, code: str) -> None:
    assert error_message(502, body) == message
    assert error_code(body) == code
