"""What the endpoints use, in one value: the collaborators of a server."""

import time
from dataclasses import dataclass, field
from math import inf

from serve_app.access.gate import Gate
from serve_app.api.tokens import TextTokenizer
from serve_app.chat.completion import Completer
from serve_app.chat.reply import Replier
from serve_app.chat.turn import TurnRunner
from serve_app.http.drain import Drain
from serve_app.http.exchange import BODY_TIMEOUT_S, MAX_BODY_BYTES
from serve_app.http.health import Check, HealthProbe
from serve_app.http.origin import OriginPolicy
from serve_app.live.service import LiveTurns
from serve_app.observe.metrics import Metrics, NoMetrics
from serve_app.rendering.renderer import EscapedRenderer, Renderer
from serve_app.sessions.catalogue import SessionCatalogue
from serve_app.sessions.images import RedisImageStore


@dataclass(frozen=True)
class HttpService:
    """`runner` runs turns of sessions, `replier` stateless replies, `completer` raw completions.

    `model_names` are the names by which requests may call the model; answers use the first. The
    model's own name is `root_name`, "" if that is the first of them.
    `plugins` are the names of those that are deployed. `readiness` is what has to be true besides
    the model's health for a server to be ready. Callers need a key if the gate `requires_key`.
    """

    runner: TurnRunner
    replier: Replier
    health: HealthProbe
    model_names: tuple[str, ...]
    max_model_len: int
    plugins: frozenset[str]
    tokenizer: TextTokenizer = field(kw_only=True)
    completer: Completer = field(kw_only=True)
    root_name: str = field(default="", kw_only=True)
    readiness: tuple[Check, ...] = ()
    gate: Gate = field(kw_only=True)
    drain: Drain = field(default_factory=Drain, kw_only=True)
    requires_key: bool = False
    origins: OriginPolicy = field(default_factory=OriginPolicy, kw_only=True)
    max_body_bytes: int = MAX_BODY_BYTES
    body_timeout_s: float = BODY_TIMEOUT_S
    # Proxies close a silent connection, often after 30 or 60 s.
    ping_s: float = 15
    max_time_s: float = 300  # of a stateless reply
    # Seconds since 1970.
    started_s: int = field(default_factory=lambda: int(time.time()))
    sessions: SessionCatalogue | None = None
    live: LiveTurns | None = None
    images: RedisImageStore | None = None
    metrics: Metrics = field(default_factory=NoMetrics, kw_only=True)
    renderer: Renderer = field(default_factory=EscapedRenderer, kw_only=True)

    def deadline(self, max_time_s: float | None) -> float:
        """That of a stateless request that comes now, in `time.monotonic` seconds."""
        return time.monotonic() + min(max_time_s or inf, self.max_time_s)

    @property
    def model_name(self) -> str:
        return self.model_names[0]
