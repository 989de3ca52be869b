"""Errors of the remote side arrive as their own type."""

from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from cluster.errors import unwrapped
from moss_tp.errors import ContextLengthError, EngineDeadError


def task_error(cause: Exception) -> RayTaskError:
    make: Any = RayTaskError  # untyped
    error: RayTaskError = make("f", "traceback", cause).as_instanceof_cause()
    return error


def test_a_moss_error_is_unwrapped() -> None:
    error = ContextLengthError("too long")
    assert unwrapped(task_error(error)) is error


def test_any_other_error_keeps_its_remote_traceback() -> None:
    error = task_error(ValueError("bug"))
    assert unwrapped(error) is error
    assert isinstance(error, ValueError)


def test_a_lost_process_is_a_dead_engine() -> None:
    error = unwrapped(ActorDiedError())
    assert isinstance(error, EngineDeadError)
    assert "ActorDiedError" in str(error)
