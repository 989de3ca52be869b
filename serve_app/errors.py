"""The errors of chats and their store. `serve_app.http.errors` maps them to responses."""

from moss_tp.errors import ConfigError, InvalidRequestError, MossError


class InvalidFieldError(InvalidRequestError):
    """A field of a request, or a header, is invalid; `param` is its name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BodyTooLargeError(InvalidRequestError):
    """The request's body is larger than allowed."""


class BodyTimeoutError(InvalidRequestError):
    """The request's body did not arrive in time."""


class ModelNotFoundError(InvalidRequestError):
    """The request names a model that is not served here."""


class SessionFullError(InvalidRequestError):
    """The session has the maximum number of turns; the client must start a new chat."""


class SessionBusyError(MossError):
    """Another turn of the session is running."""


class IdempotencyInProgressError(MossError):
    """The turn of this Idempotency-Key is still running."""


class IdempotencyMismatchError(InvalidRequestError):
    """The Idempotency-Key was used before with another body."""


class DrainingError(MossError):
    """The server is stopping: it takes no new turn, or ended this one after the time to drain."""


class NotReadyError(MossError):
    """No application or replica takes requests now; the server is starting or under strain."""


class StoreUnavailableError(MossError):
    """The session store does not respond, or rejects writes."""


class TurnNotStoredError(MossError):
    """The session changed or expired during generation, so the reply was discarded."""


class LeaseLostError(TurnNotStoredError):
    """Another server runs the turn now, so this one may not write for it any more."""


class StoreInUseError(ConfigError):
    """Another server uses the embedded store's directory."""


class StoreStartError(MossError):
    """The embedded store did not start; the message quotes its log."""
