"""The settings of the application: the arguments of `build_app`, from `moss serve` or a Serve YAML.

The only place where they become an EngineConfig. It starts nothing and opens no model.
"""

import re
from collections.abc import Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cluster.scaling.replicas import Replicas
from moss_tp.device import TRAITS
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from plugins_svc.registry import SPECS, available_plugins
from plugins_svc.sdk.spec import PluginSettings
from serve_app.api_secret import take_environment_key
from serve_app.prompt.choose import Dialogue
from serve_app.prompt.meta_instruction import FILE_NAME as META_INSTRUCTION_FILE

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]
LoadFormat = Literal["auto", "dummy"]

# Published models trained with plugins, as a hub id, a local copy or the hub's cache.
_PLUGIN_MODEL = re.compile(r"-plugin(-int[48])?(/snapshots/[0-9a-f]+)?$")


class ServeSettings(BaseModel):
    """`model` is a directory or hub id, resolved on each node that loads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    store: str = Field(description="URL of the session store: redis://…")
    # Whether the store may evict chats, or lose them in a crash of its own.
    allow_volatile_store: bool = False
    tp: int = Field(default=1, ge=1)
    threads: int | None = Field(
        default=None,
        ge=1,
        description="of each rank; None: the cores, shared by one replica's ranks",
    )
    device: Device = "cpu"
    dtype: Dtype | None = None
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: Literal["int8"] | None = Field(default=None, description="None: as dtype")
    cpu_offload_gb: float = Field(default=0, ge=0, description="of each rank, in GiB")
    load_format: LoadFormat = "auto"
    lm_head_bits: Literal[8] | None = Field(default=None, description="None: as it is stored")
    replicas: Annotated[Replicas, BeforeValidator(Replicas.of)] = Replicas()
    scale_down_after_s: float = Field(
        default=60, ge=0, description="for so long, the load has to have fit in fewer replicas"
    )
    # Two, so that the death of one ends no client's service.
    ingresses: int = Field(default=2, ge=1)
    documents_dir: Path | None = Field(default=None, description="documents for web search")
    plugins: tuple[str, ...] | None = Field(default=None, description="None: all available")
    dialogue: Dialogue | None = Field(default=None, description="None: by the model's name")
    # How long requests may take to end when the server stops, or a replica is replaced.
    drain_s: float = Field(default=120, ge=0)
    step_timeout_s: float | None = Field(default=None, gt=0)
    auth: Literal["required", "none"] | None = Field(
        default=None, description="whether callers need a key; None: if there is an api_key_sha256"
    )
    no_auth: bool = Field(default=False, description="other machines may call without a key")
    # Never the key itself, which would be seen wherever these settings are.
    api_key_sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="of MOSS_API_KEY, an admin's key"
    )
    hosts: tuple[str, ...] = Field(
        default=(), description="names of this server, besides localhost, when no key is needed"
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="foreign pages' scheme://host[:port], or * for all"
    )
    served_model_names: tuple[str, ...] = Field(
        default=(), description="the model's names in the API, the first in answers"
    )
    moderation: str | None = Field(
        default=None, description="module:function that may refuse text of users and of the model"
    )
    log_format: Literal["text", "json"] = "text"
    log_file: Path | None = Field(
        default=None, description="None: the standard error of each process"
    )
    # Failed starts of a replica after which the deployment counts as failed.
    start_attempts: int = Field(default=3, ge=1)

    @property
    def model_name(self) -> str:
        """The name in the API: the hub id, or the name of the directory."""
        path = Path(self.model)
        return path.resolve().name if path.is_dir() else self.model

    @property
    def model_names(self) -> tuple[str, ...]:
        """The names by which the API knows the model."""
        return self.served_model_names or (self.model_name,)

    @property
    def requires_key(self) -> bool:
        """Whether callers need an API key."""
        has_key = self.api_key_sha256 is not None and not self.no_auth
        return self.auth == "required" or (self.auth is None and has_key)

    def with_environment(self, environment: MutableMapping[str, str]) -> Self:
        """The same with the key of MOSS_API_KEY, which is removed from `environment`.

        Raises ConfigError for a weak one.
        """
        digest = take_environment_key(environment)
        return self if digest is None else self.model_copy(update={"api_key_sha256": digest})

    @property
    def reads_weights(self) -> bool:
        """Whether the model's files have to hold its weights."""
        return self.load_format != "dummy"

    @property
    def resolved_dialogue(self) -> Dialogue:
        """`dialogue`, or what the name of the model says."""
        return self.dialogue or dialogue_of(self.model)

    @property
    def plugin_settings(self) -> PluginSettings:
        """The values of the plugins' settings that are set; each is a field of its name."""
        names = [setting.name for spec in SPECS for setting in spec.settings]
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def plugin_names(self) -> tuple[str, ...]:
        """The plugins to deploy, in MOSS's order. Raises ConfigError for names that cannot run."""
        if self.resolved_dialogue == "plain":
            self._check_no_plugins()
            return ()
        available = available_plugins(self.plugin_settings)
        if self.plugins is None:
            return available
        check_plugin_names(self.plugins, available)
        return tuple(name for name in available if name in self.plugins)

    def _check_no_plugins(self) -> None:
        if self.plugins or self.plugin_settings:
            raise ConfigError(
                f"{self.model_name} is served as a model without plugins, so nothing can"
                " calculate or search for it; if it was trained with them, add --dialogue plugin"
            )

    def engine_config(self, model_dir: str) -> EngineConfig:
        """The engine's config for `model_dir`. Raises ConfigError for values that cannot work."""
        traits = TRAITS[self.device]
        return EngineConfig(
            model=model_dir,
            tp_size=self.tp,
            num_threads=self.threads,
            device=self.device,
            dtype=self.dtype or traits.default_dtype,
            max_model_len=self.max_model_len,
            kv_cache_bytes=self.kv_cache_bytes,
            kv_cache_dtype=self.kv_cache_dtype,
            step_timeout_s=self.step_timeout_s,
            cpu_offload_gb=self.cpu_offload_gb,
            load_format=self.load_format,
            lm_head_bits=self.lm_head_bits,
        )


def check_plugin_names(names: Iterable[str], known: Sequence[str]) -> None:
    """Raises ConfigError for a name that is not in `known`."""
    if unknown := set(names) - set(known):
        raise ConfigError(
            f"no plugin {', '.join(sorted(unknown))}: available are {', '.join(known)}"
        )


def dialogue_of(model: str) -> Dialogue:
    """`plugin` for a model with such a name or with a meta instruction file, else `plain`.

    Published checkpoints differ only in their names. A model prompted in the wrong dialogue writes
    nonsense, so a model fine-tuned under another name needs the setting `dialogue`.
    """
    path = Path(model).resolve()
    is_named_so = any(_PLUGIN_MODEL.search(name) for name in (model, str(path)))
    return "plugin" if is_named_so or (path / META_INSTRUCTION_FILE).is_file() else "plain"
