"""The errors this project raises. They know no HTTP: serve_app maps them to status codes once."""


class MossError(Exception):
    """Root of every error that is meant to be read by a person."""


class ConfigError(MossError):
    """A flag or setting that cannot work; raised before anything is started."""


class CheckpointError(MossError):
    """A model directory that is missing, incomplete, misshapen or of another architecture."""


class InvalidRequestError(MossError):
    """A request whose own values are wrong; the client must change it."""


class ContextLengthError(InvalidRequestError):
    """The prompt leaves no room for a reply within the model's context."""


class EngineDeadError(MossError):
    """The engine or one of its ranks is gone; every waiting request gets this."""


class DeadlineExceededError(MossError):
    """The deadline passed before the reply began."""


class QueueFullError(MossError):
    """The engine already holds as many requests as it may; try again later."""
