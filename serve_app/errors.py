"""The errors of chats and their store. `serve_app.http.errors` maps them to responses."""

from moss_tp.errors import ConfigError, InvalidRequestError, MossError


class InvalidFieldError(InvalidRequestError):
    """A field of a request, or a header, is invalid; `param` is its name."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnsupportedParameterError(InvalidFieldError):
    """A field would change the answer, and this server cannot honour it."""


class ContentRefusedError(InvalidRequestError):
    """The operator's moderation hook refused the request's text."""


class BodyTooLargeError(InvalidRequestError):
    """The request's body is larger than allowed."""


class BodyTimeoutError(InvalidRequestError):
    """The request's body did not arrive in time."""


class HeadersTooLargeError(InvalidRequestError):
    """The request has too many headers, or they are larger than allowed."""


class PathNotFoundError(InvalidRequestError):
    """Nothing has this path."""


class InvalidKeyError(MossError):
    """The request has no API key where one is needed, or one that is wrong or revoked."""


class PermissionDeniedError(MossError):
    """The caller's key does not allow what it asks for."""


class ForeignOriginError(PermissionDeniedError):
    """A browser sends the request for a page of another site, or to a host that is not this one."""


class RateLimitError(MossError):
    """The caller has used up a limit of its key: try again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SessionNotFoundError(InvalidRequestError):
    """No such session, or another owner's: nothing tells which."""

    def __init__(self, message: str = "there is no such session") -> None:
        super().__init__(message)


class TurnNotFoundError(InvalidRequestError):
    """The session has no such turn."""


class ImageNotFoundError(InvalidRequestError):
    """No such image, or another owner's."""


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


class TurnCancelledError(MossError):
    """A client has cancelled the turn, which leaves no trace."""


class LeaseLostError(TurnNotStoredError):
    """Another server runs the turn now, so this one may not write for it any more."""


class StoreInUseError(ConfigError):
    """Another server uses the embedded store's directory."""


class StoreStartError(MossError):
    """The embedded store did not start; the message quotes its log."""


def forbid_retry(error: Exception) -> None:
    """From now on the response to `error` tells clients not to send the request again.

    For a failure after a call with effects was sent, whatever the failure is.
    """
    error.should_retry = False  # type: ignore[attr-defined]
