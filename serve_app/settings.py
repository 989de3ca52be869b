"""What a deployment is told: the arguments of `build_app`, from `moss serve` or a Serve YAML.

The only place where outside names turn into an EngineConfig. It starts and opens nothing.
"""

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from moss_tp.device import TRAITS
from moss_tp.engine_config import EngineConfig
from moss_tp.errors import ConfigError
from plugins_svc.registry import available_plugins
from plugins_svc.sdk.spec import PluginSettings
from serve_app.prompt.choose import Dialogue
from serve_app.prompt.meta_instruction import FILE_NAME as META_INSTRUCTION_FILE

Device = Literal["cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]

# The published models that were taught plugins, by hub id, copy or the hub's cache.
_PLUGIN_MODEL = re.compile(r"-plugin(-int[48])?(/snapshots/[0-9a-f]+)?$")


class ServeSettings(BaseModel):
    """`model` is a directory or hub id, resolved again on the node that loads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    store: str = Field(description="redis://… of the session store")
    tp: int = Field(default=1, ge=1)
    device: Device = "cpu"
    dtype: Dtype | None = None
    max_model_len: int | None = None
    kv_cache_bytes: int | None = None
    kv_cache_dtype: Literal["int8"] | None = Field(default=None, description="None: dtype")
    replicas: int = Field(default=1, ge=1)
    documents_dir: Path | None = Field(default=None, description="what web search searches")
    plugins: tuple[str, ...] | None = Field(default=None, description="None: all that can run")
    dialogue: Dialogue | None = Field(default=None, description="None: by the model's name")
    # A replica that is replaced or scaled away gets this long to end its replies.
    drain_s: float = Field(default=120, ge=0)
    step_timeout_s: float | None = Field(default=None, gt=0)
    # How often a replica may fail to start before the deployment counts as failed.
    start_attempts: int = Field(default=3, ge=1)

    @property
    def model_name(self) -> str:
        """What clients call the model: its hub id, or its directory's name."""
        path = Path(self.model)
        return path.resolve().name if path.is_dir() else self.model

    @property
    def spoken_dialogue(self) -> Dialogue:
        return self.dialogue or dialogue_of(self.model)

    @property
    def plugin_settings(self) -> PluginSettings:
        return {} if self.documents_dir is None else {"documents_dir": self.documents_dir}

    @property
    def plugin_names(self) -> tuple[str, ...]:
        """The plugins to deploy, in MOSS's order; none for a model that speaks plainly."""
        if self.spoken_dialogue == "plain":
            if self.plugins or self.documents_dir:
                raise ConfigError(
                    f"{self.model_name} is served as a model without plugins, so nothing can"
                    " calculate or search for it; if it was taught them, say so: --dialogue plugin"
                )
            return ()
        available = available_plugins(self.plugin_settings)
        if self.plugins is None:
            return available
        if unknown := set(self.plugins) - set(available):
            raise ConfigError(
                f"no back end for plugin {', '.join(sorted(unknown))}: there is "
                f"{', '.join(available)}"
            )
        return tuple(name for name in available if name in self.plugins)

    def engine_config(self, model_dir: str) -> EngineConfig:
        """The engine's own config; ConfigError for values that cannot work."""
        traits = TRAITS[self.device]
        return EngineConfig(
            model=model_dir,
            tp_size=self.tp,
            device=self.device,
            dtype=self.dtype or traits.default_dtype,
            max_model_len=self.max_model_len,
            kv_cache_bytes=self.kv_cache_bytes,
            kv_cache_dtype=self.kv_cache_dtype,
            step_timeout_s=self.step_timeout_s or traits.step_timeout_s,
        )


def dialogue_of(model: str) -> Dialogue:
    """`plugin` for a model that is named so or brings a meta instruction.

    Published checkpoints differ in nothing but their names. A model in the other dialogue writes
    nonsense; who fine-tunes one under a name of their own says which it was taught.
    """
    path = Path(model).resolve()
    is_named_so = any(_PLUGIN_MODEL.search(name) for name in (model, str(path)))
    return "plugin" if is_named_so or (path / META_INSTRUCTION_FILE).is_file() else "plain"
