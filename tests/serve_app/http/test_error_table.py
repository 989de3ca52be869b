"""The table of errors is complete: each of our errors has a status, or never reaches a request.

Errors are found in the sources, so a new one without an entry fails here.
"""

import ast
import json
import logging
from pathlib import Path

import pytest

from moss_tp.errors import (
    ContextLengthError,
    DeadlineExceededError,
    EngineDeadError,
    InvalidRequestError,
    QueueFullError,
)
from serve_app import errors
from serve_app.http.errors import TABLE, error_body, find, to_response, told_response

ROOT = Path(__file__).parents[3]
PACKAGES = ("moss_tp", "cluster", "serve_app")
# Raised before a server runs, within its engine or a reply, by a client or benchmark of it, or by
# fine-tuning.
WITHOUT_A_REQUEST = {
    "CheckpointError",
    "ConfigError",
    "StepMemoryError",
    "StoreInUseError",
    "StoreStartError",
    "StartError",
    "RayDiedError",
    "ChatError",
    "RefusedError",
    "LostError",
    "UnreachableError",
    "SaveError",
    "ProxyError",
    "StateError",
    "BenchError",
    "ReplayError",
    "ConversationError",
}


def bases_by_class() -> dict[str, set[str]]:
    """The names of the bases of every class in the sources."""
    found = {}
    for path in (path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    return found


def descendants(roots: set[str]) -> set[str]:
    """`roots` and all classes that are derived from them."""
    bases = bases_by_class()
    known = set(roots)
    while new := {name for name, own in bases.items() if own & known} - known:
        known |= new
    return known


def test_every_error_has_a_status_or_reaches_no_request() -> None:
    all_errors = descendants({"MossError"}) - {"MossError"}
    mapped = descendants({kind.__name__ for kind in TABLE})
    assert len(all_errors) > 20
    assert all_errors - mapped == WITHOUT_A_REQUEST


def test_retry_after_is_set_where_a_retry_may_help() -> None:
    for kind, entry in TABLE.items():
        may_retry = entry.should_retry and (entry.status in (409, 429) or entry.status >= 500)
        assert (entry.retry_after_s is not None) == may_retry, kind
        assert entry.type == "invalid_request_error" or entry.status not in (400, 404, 413, 422)


def test_clients_retry_neither_a_deadline_nor_what_had_effects() -> None:
    assert to_response(DeadlineExceededError("late")).headers["X-Should-Retry"] == "false"
    error = EngineDeadError("a rank is dead")
    assert "X-Should-Retry" not in to_response(error).headers
    errors.forbid_retry(error)
    assert to_response(error).headers["X-Should-Retry"] == "false"
    assert "X-Should-Retry" not in to_response(EngineDeadError("another")).headers


def test_clients_do_not_retry_what_another_ingress_failed() -> None:
    """It may have sent a call with effects."""
    here, told = EngineDeadError("lost"), told_response(error_body(EngineDeadError("lost")))
    assert "X-Should-Retry" not in to_response(here).headers
    assert (told.status_code, told.headers["X-Should-Retry"]) == (500, "false")


def test_a_missing_key_is_a_challenge() -> None:
    response = to_response(errors.InvalidKeyError("no key"))
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "WWW-Authenticate" not in to_response(errors.PermissionDeniedError("no")).headers


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.4, "1"), (2.1, "3"), (40, "40")])
def test_an_error_may_know_when_a_retry_helps(seconds: float, header: str) -> None:
    response = to_response(QueueFullError("full", seconds))
    assert (response.status_code, response.headers["Retry-After"]) == (429, header)


def test_codes_tell_errors_of_a_status_apart() -> None:
    """A client that handles a code never has to read the message."""
    pairs = [(entry.status, entry.code) for entry in TABLE.values() if entry.code]
    shared = {pair for pair in pairs if pairs.count(pair) > 1}
    assert shared == {(400, "context_length_exceeded")}


def test_a_class_without_an_entry_has_that_of_its_nearest_base() -> None:
    class TooManyTokensError(ContextLengthError):
        pass

    class OddRequestError(InvalidRequestError):
        pass

    assert find(TooManyTokensError("x")) is TABLE[ContextLengthError]
    assert find(OddRequestError("x")) is TABLE[InvalidRequestError]


def test_an_unexpected_error_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = to_response(RuntimeError("password 123"))
    assert (response.status_code, response.headers["Retry-After"]) == (500, "5")
    assert "123" not in bytes(response.body).decode()
    assert json.loads(bytes(response.body))["error"]["message"] == "internal error"
    (record,) = caplog.records
    assert record.exc_info is not None and "123" in str(record.exc_info[1])


@pytest.mark.parametrize("kind", TABLE)
def test_an_error_in_the_table_keeps_its_message(
    kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    body = error_body(kind("what is wrong"))["error"]
    param = "model" if kind is errors.ModelNotFoundError else None
    assert (body["message"], body["param"]) == ("what is wrong", param)
    assert not caplog.records


def test_the_field_that_is_wrong_is_named() -> None:
    error = errors.InvalidFieldError("not a number", "top_p")
    assert error_body(error)["error"]["param"] == "top_p"
