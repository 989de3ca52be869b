"""The HTTP side as a Serve deployment: the Starlette app over handles to model and plugins.

It is separate from the model so that each is routed and scaled by its own load. Sessions are in
the store, so any replica serves any request.
"""

import asyncio
from collections.abc import Mapping

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette

from cluster.channel.listener import Listener
from cluster.routing.hits import HITS
from moss_tp.config import ModelConfig, resolve_model
from moss_tp.tokenizer import Tokenizer
from plugins_svc.deployment import PluginReplica
from serve_app.access.key_gate import create_gate
from serve_app.chat.completion import Completer
from serve_app.chat.reply import Replier, create_replier
from serve_app.chat.turn import TurnLimits, TurnRunner
from serve_app.deployments.application import own_application
from serve_app.deployments.listening import listening_host, own_host
from serve_app.deployments.model import MossServer
from serve_app.deployments.replica_end import drain_when_stopped, finish_turns
from serve_app.exposure import check_exposure
from serve_app.http.app import create_http_app
from serve_app.http.drain import Drain
from serve_app.http.errors import error_body
from serve_app.http.origin import OriginPolicy
from serve_app.http.service import HttpService
from serve_app.live.redis import RedisLiveStore
from serve_app.live.service import LiveTurns
from serve_app.live.teller import Means
from serve_app.moderation.hook import load_moderation
from serve_app.observe.logs import configure_logs
from serve_app.observe.metrics import ServerMetrics
from serve_app.precedence import yield_to_the_model
from serve_app.prompt.choose import build_prompts
from serve_app.remote.first_token import FirstToken
from serve_app.remote.loading import LoadingBoard
from serve_app.remote.model import RemoteModel
from serve_app.remote.plugins import remote_plugins
from serve_app.remote.probe import ReplicaProbe
from serve_app.rendering.isolated import IsolatedRenderer
from serve_app.sessions.images import RedisImageStore
from serve_app.sessions.redis import RedisSessionStore
from serve_app.sessions.redis_catalogue import RedisSessionCatalogue
from serve_app.settings import ServeSettings
from serve_app.store.claim import Claim
from serve_app.watch import Watch


@serve.ingress()
class Ingress:
    """A replica. `plugins` are the handles of the deployed plugins, by name."""

    def __init__(
        self,
        settings: ServeSettings,
        model: DeploymentHandle[MossServer],
        plugins: Mapping[str, DeploymentHandle[PluginReplica]],
    ) -> None:
        yield_to_the_model()
        self._settings = settings
        self._model = RemoteModel(model, Listener(own_host()))
        self._loading = LoadingBoard(settings.store)
        may_sleep = settings.replicas.least == 0
        self._probe = ReplicaProbe(model, may_sleep=may_sleep, loading=self._loading.read)
        self._first_token = FirstToken(self._model, self._probe.groups)
        self._plugins = plugins
        if (host := listening_host()) is not None:
            check_exposure(settings, host)
        self._store = RedisSessionStore(settings.store)
        self._claim = Claim(settings.store, own_application(settings))
        self._catalogue = RedisSessionCatalogue(settings.store)
        self._images = RedisImageStore(settings.store)
        self._live_store = RedisLiveStore(settings.store)
        self._gate = create_gate(settings.store, settings.requires_key, settings.api_key_sha256)
        self._moderation = load_moderation(settings.moderation)
        self._drain = Drain()
        self._model_dir = resolve_model(settings.model, with_weights=False)

    async def __serve_build_asgi_app__(self) -> Starlette:
        """Serve calls this after the constructor."""
        await self._store.check(may_be_volatile=self._settings.allow_volatile_store)
        await self._claim.take()
        self._stop = asyncio.create_task(drain_when_stopped(self._drain, self._settings.drain_s))
        tokenizer = Tokenizer.from_dir(self._model_dir)
        max_model_len = self._max_model_len()
        self._metrics = ServerMetrics(
            self._settings.store,
            self._settings.model_names[0],
            max_model_len,
            routed=HITS.counted,
        )
        self._metrics.open()
        key = await self._metrics.log_key()
        configure_logs(self._settings.log_format, self._settings.log_file, key)
        replier = self._replier(tokenizer, self._metrics.watch)
        limits = TurnLimits(max_model_len)
        self._live = self._live_turns(replier, limits)
        self._renderer = IsolatedRenderer()
        service = HttpService(
            runner=TurnRunner(self._store, replier, limits, self._probe),
            replier=replier,
            health=self._probe,
            model_names=self._settings.model_names,
            root_name=self._settings.model_name,
            max_model_len=max_model_len,
            plugins=frozenset(self._plugins),
            tokenizer=tokenizer,
            completer=Completer(self._model, tokenizer, self._moderation, self._metrics.watch),
            readiness=(self._store.is_ready, self._first_token.has_come),
            drain=self._drain,
            sessions=self._catalogue,
            live=self._live,
            images=self._images,
            gate=self._gate,
            requires_key=self._settings.requires_key,
            origins=_origins(self._settings),
            metrics=self._metrics,
            renderer=self._renderer,
        )
        return create_http_app(service)

    async def has_served(self) -> bool:
        """Whether a token of the model has come here."""
        return await self._first_token.has_come()

    async def begin_drain(self) -> int:
        """Takes no more turns; returns how many run."""
        return self._drain.begin()

    async def finish_drain(self, within_s: float) -> int:
        """Returns when no turn runs, which is soon after `within_s`; how many were cut."""
        return await self._drain.finish(within_s)

    async def __del__(self) -> None:
        if hasattr(self, "_stop"):
            await finish_turns(self._drain, self._stop)
        if hasattr(self, "_live"):
            await self._live.close()
        if hasattr(self, "_renderer"):
            await self._renderer.close()
        if hasattr(self, "_model"):
            self._first_token.close()
            await self._model.close()
        if hasattr(self, "_gate"):
            await self._live_store.close()
            await self._claim.close()
            await self._loading.close()
            await self._store.close()
            await self._catalogue.close()
            await self._images.close()
            await self._gate.close()
        if hasattr(self, "_metrics"):
            await self._metrics.close()

    def _max_model_len(self) -> int:
        config = self._settings.engine_config(str(self._model_dir))
        return config.resolve(ModelConfig.from_dir(self._model_dir)).context_length

    def _live_turns(self, replier: Replier, limits: TurnLimits) -> LiveTurns:
        parts = self._live_store, self._store, replier, error_body, self._probe
        means = Means(*parts, readmit=self._gate.resume)
        live = LiveTurns(means, limits, self._drain)
        live.open()
        return live

    def _replier(self, tokenizer: Tokenizer, watch: Watch) -> Replier:
        prompts = build_prompts(tokenizer, self._model_dir, self._settings.resolved_dialogue)
        plugins, moderation = remote_plugins(self._plugins), self._moderation
        return create_replier(
            self._model,
            plugins,
            prompts,
            moderation=moderation,
            watch=watch,
            pictures=self._images,
        )


def _origins(settings: ServeSettings) -> OriginPolicy:
    """Where callers show keys, the name by which they call tells nothing."""
    hosts = None if settings.requires_key else frozenset(settings.hosts)
    return OriginPolicy(frozenset(settings.cors_origins), hosts)
