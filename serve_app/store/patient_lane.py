"""A lane whose steps' deadlines are our own, and no caller's."""

from moss_tp.errors import DeadlineExceededError
from serve_app.errors import StoreUnavailableError
from serve_app.store.lane import Lane, Step, T


class PatientLane(Lane):
    """A Lane that says of a store which is only too busy that it is not available."""

    async def run(self, step: Step[T], deadline: float) -> T:
        """The result of `step`, which gets until `deadline`. Raises StoreUnavailableError."""
        try:
            return await super().run(step, deadline)
        except DeadlineExceededError as error:
            raise StoreUnavailableError("the session store is too busy") from error
