"""What an error of Ray means in this project's words. Ray wraps what a remote call raised."""

from ray.exceptions import RayError, RayTaskError

from moss_tp.errors import EngineDeadError, MossError


def unwrapped(error: RayError) -> Exception:
    """The MossError that the remote side raised, itself; a vanished remote is a dead engine.

    Any other exception of the remote side comes back as Ray gave it: it is a bug, and its
    traceback is worth keeping.
    """
    if isinstance(error, RayTaskError):
        cause = error.cause
        return cause if isinstance(cause, MossError) else error
    return EngineDeadError(f"the model's process is gone ({type(error).__name__})")
