"""What a plugin's process gets to log and to trace like the others."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from serve_app.observe.logs import LogFormat, configure_logs
from serve_app.observe.tracing import span


@dataclass(frozen=True)
class PluginObserver:
    """See `plugins_svc.deployment.Observer`."""

    log_format: LogFormat
    log_file: Path | None

    def prepare(self) -> None:
        configure_logs(self.log_format, self.log_file)

    def call(self, name: str, traceparent: str) -> AbstractContextManager[object]:
        return span("plugin", traceparent, {"moss.plugin": name})
