"""The errors of chats and their store. They know no HTTP: `http_errors` maps them once."""

from moss_tp.errors import ConfigError, InvalidRequestError, MossError


class InvalidFieldError(InvalidRequestError):
    """One named field of a request, or one header, is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BodyTooLargeError(InvalidRequestError):
    """The request's body is over the cap."""


class ModelNotFoundError(InvalidRequestError):
    """The request names a model that this server does not serve."""


class SessionFullError(InvalidRequestError):
    """The session holds as many turns as one may; the client starts a new chat."""


class SessionBusyError(MossError):
    """Another turn of the session is running."""


class IdempotencyInProgressError(MossError):
    """The very turn that the Idempotency-Key names is still running."""


class IdempotencyMismatchError(InvalidRequestError):
    """The Idempotency-Key was used before, with another body."""


class StoreUnavailableError(MossError):
    """The session store does not answer, or refuses to write."""


class TurnNotStoredError(MossError):
    """The session changed or expired while the reply was made, so the reply was discarded."""


class StoreInUseError(ConfigError):
    """Another server runs on the embedded store's directory."""


class StoreStartError(MossError):
    """The embedded store did not come up; the message says what its log says."""
