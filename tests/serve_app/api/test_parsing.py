"""JSON from anybody: what two readers may see otherwise is refused, within a moment."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from serve_app.api.parsing import MAX_INTEGER, MIN_INTEGER, parse_body
from serve_app.errors import InvalidFieldError

DEEP = 100_000


class Anything(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


def read(body: bytes | str) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    return parse_body(raw, Anything).model_extra or {}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEEP + b"]" * DEEP,
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b"[" * DEEP,
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": 1' + b"0" * DEEP + b"}",
        b'{"a": 18446744073709551616}',
        b'{"a": -9223372036854775809}',
        b'{"a": 1e400}',
        b'{"a": [[{"b": -1e999}]]}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": {"b": -Infinity}}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": [{"c": 1, "c": 2}]}}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\x01"}',
        b'{"a": 01}',
        b'{"a": 1} {}',
        b'{"a": 1',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b" ",
        b"null",
        b"[]",
        b'"a"',
        b"1",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_not_strict_json_is_refused_at_once(body: bytes) -> None:
    start = time.monotonic()
    with pytest.raises(InvalidFieldError) as raised:
        read(body)
    assert time.monotonic() - start < 1
    assert len(str(raised.value)) < 500, "an error is not an echo"
    str(raised.value).encode()


class Named(Anything):
    name: str


def test_no_body_is_an_empty_one_where_nothing_is_required() -> None:
    assert read(b"") == {}
    with pytest.raises(InvalidFieldError, match="not JSON"):
        parse_body(b"", Named)


@pytest.mark.parametrize(
    "value", [0, -1, 1.5, 1e308, MIN_INTEGER, MAX_INTEGER, "", "\x00", "中😀", None, [], {}]
)
def test_what_is_strict_json_is_read(value: object) -> None:
    """The control: the bounds themselves are inside."""
    assert read(json.dumps({"a": value})) == {"a": value}
    assert read(json.dumps({"a": value}, ensure_ascii=False)) == {"a": value}
    nested: object = value
    for _ in range(100):
        nested = [nested]
    assert read(json.dumps({"a": nested})) == {"a": nested}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(MIN_INTEGER, MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
BAD_TEXT = st.sampled_from(
    ["NaN", "-Infinity", "1e400", "1" + "0" * 400, '"\\ud800"', '{"k":1,"k":1}']
)


@given(st.dictionaries(st.text(), VALUES, max_size=5), st.booleans())
def test_any_object_is_read_as_it_was_written(fields: dict[str, Any], is_ascii: bool) -> None:
    assert read(json.dumps(fields, ensure_ascii=is_ascii)) == fields


@given(st.dictionaries(st.text(), VALUES, max_size=3), BAD_TEXT, st.lists(st.booleans()))
def test_one_bad_value_anywhere_spoils_the_body(
    fields: dict[str, Any], bad: str, path: list[bool]
) -> None:
    for is_list in path:
        bad = f'[0, {bad}, "x"]' if is_list else f'{{"x": {bad}}}'
    name = "n" * (1 + max(map(len, fields), default=0))  # a key of its own
    body = json.dumps({**fields, name: 0}).removesuffix("0}") + bad + "}"
    with pytest.raises(InvalidFieldError):
        read(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        value = read(body)
    except InvalidFieldError:
        return
    assert value == json.loads(body or b"{}")
