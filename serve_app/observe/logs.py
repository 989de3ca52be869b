"""Logs of the server: a line a record, as text or JSON. No line has a prompt, a key, a uid.

uids and owners are hashed with a key of the server: lines of one chat can be found, not its chat.
An exception is logged by its type and where it was raised; its message may quote a client.
"""

import hashlib
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any, Literal

from serve_app.observe.redact import redact
from serve_app.request_context import CURRENT

LogFormat = Literal["text", "json"]

PACKAGES = ("serve_app", "moss_tp", "cluster", "plugins_svc")
_DIGEST_BYTES = 8


class LogFormatter(logging.Formatter):
    """`key` is that of the hashes; without one, there are none in a line."""

    def __init__(self, log_format: LogFormat, key: bytes = b"") -> None:
        super().__init__()
        self._is_json = log_format == "json"
        self._key = key

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in self._fields(record).items() if value}
        fields = {name: _redacted(value) for name, value in fields.items()}
        if self._is_json:
            return json.dumps(fields, ensure_ascii=False)
        head = [fields.pop(name) for name in ("time", "level", "message")]
        rest = [f"{name}={value}" for name, value in fields.items()]
        return " ".join((*head, *rest)).replace("\n", " | ")

    def _fields(self, record: logging.LogRecord) -> Mapping[str, Any]:
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        request = getattr(record, "record", None) or CURRENT.get()
        if request is not None:
            fields |= {
                "request_id": request.id,
                "uid": self._digest(request.uid),
                "owner": self._digest(request.owner),
                "trace_id": request.traceparent[3:35],
            }
        fields |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = _where(record.exc_info[1])
        return fields

    def _digest(self, value: str) -> str:
        if not (value and self._key):
            return ""
        digest = hashlib.blake2b(value.encode(), key=self._key, digest_size=_DIGEST_BYTES)
        return digest.hexdigest()


def configure_logs(log_format: LogFormat, path: Path | None = None, key: bytes = b"") -> None:
    """Sends the records of our packages to `path`, else to stderr. Idempotent.

    Several processes may write to one `path`: a line is written at once.
    """
    handler = _Stderr() if path is None else WatchedFileHandler(path, encoding="utf-8")
    handler.setFormatter(LogFormatter(log_format, key))
    for name in PACKAGES:
        logger = logging.getLogger(name)
        for old in (each for each in [*logger.handlers] if _is_ours(each)):
            logger.removeHandler(old)
            old.close()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class _Stderr(logging.Handler):
    """Whatever stderr is when a record comes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr, flush=True)


def _redacted(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def _is_ours(handler: logging.Handler) -> bool:
    return isinstance(handler.formatter, LogFormatter)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__
    after = "" if cause is None else f"; caused by {_where(cause)}"
    return f"{type(error).__name__} at {' > '.join(places)}{after}"
