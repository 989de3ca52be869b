"""A tiny model, an engine on it for a module, and for each test an application over it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from moss_tp import LLM
from moss_tp.engine.async_engine import AsyncEngine
from moss_tp.engine.build import build_engine
from moss_tp.engine_config import EngineConfig
from moss_tp.tokenizer import Tokenizer
from tests.serve_app.http.endpoints.sites.engine_site import EngineSite, make_engine_site
from tests.support.site import Site
from tests.support.tiny_moss import make_checkpoint

MAX_MODEL_LEN = 128


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("raw") / "tiny"))


@pytest.fixture(scope="module")
def llm(tiny: str) -> Iterator[LLM]:
    """The same model, asked directly."""
    with LLM(tiny, dtype="float32", max_model_len=MAX_MODEL_LEN, num_threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(tiny: str) -> Iterator[AsyncEngine]:
    config = EngineConfig(tiny, dtype="float32", max_model_len=MAX_MODEL_LEN, num_threads=1)
    opened = AsyncEngine(build_engine(config))
    yield opened
    opened.close()


@pytest.fixture
async def raw(site: Site, engine: AsyncEngine, tiny: str) -> AsyncIterator[EngineSite]:
    made = make_engine_site(site.service, engine, Tokenizer.from_dir(tiny), MAX_MODEL_LEN)
    async with made.client:
        yield made
