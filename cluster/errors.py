"""Translates Ray's errors into this project's. Ray wraps whatever a remote call raises."""

from ray.exceptions import RayError, RayTaskError

from moss_tp.errors import EngineDeadError, MossError


def unwrapped(error: RayError) -> Exception:
    """The MossError that the remote side raised; EngineDeadError if its process is gone.

    Any other remote exception is a bug and is returned as it is, for its remote traceback.
    """
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, MossError) else error
    return EngineDeadError(f"the model's process is gone ({type(error).__name__})")
