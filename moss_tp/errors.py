"""The project's errors. They are independent of HTTP: serve_app maps them to status codes."""


class MossError(Exception):
    """Base of all errors. The message is written for the user."""


class ConfigError(MossError):
    """A flag or setting that cannot work. Raised before anything is started."""


class CheckpointError(MossError):
    """A model directory that is missing, incomplete, broken or of another architecture."""


class InvalidRequestError(MossError):
    """A request with values that are wrong in themselves: a client error."""


class ContextLengthError(InvalidRequestError):
    """The prompt leaves no room for a reply in the model's context."""


class EngineDeadError(MossError):
    """The engine or one of its ranks has died. Every unfinished request gets this error."""


class DeadlineExceededError(MossError):
    """The request's deadline passed before its first token."""


class QueueFullError(MossError):
    """The engine has more work than it can begin in time: try again in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StepMemoryError(MossError):
    """A step did not fit into the device's memory. Nothing of it counts; a smaller one may fit."""


class RequestMemoryError(MossError):
    """A request's next token alone does not fit into the device's memory."""
