"""A replica says what its replies are made by: every setting that changes their bits."""

import asyncio
from pathlib import Path
from typing import Any, Self, cast

import msgpack
import pytest
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serve_app.demo.bundled import BUNDLED_MODEL
from serve_app.deployments import make_up
from serve_app.deployments.make_up import code_digest, replica_make_up
from serve_app.remote.probe import ReplicaProbe
from serve_app.settings import ServeSettings
from tests.support.tiny_moss import make_checkpoint


def made_up(**fields: Any) -> dict[str, Any]:
    settings = {"model": str(BUNDLED_MODEL), "store": "redis://x", **fields}
    return replica_make_up(ServeSettings.model_validate(settings))


def test_it_is_plain_data_and_the_same_each_time() -> None:
    one = made_up()
    assert one == made_up(replicas=3, drain_s=1) == msgpack.unpackb(msgpack.packb(one))
    assert (one["device"], one["dtype"], one["kv_cache_dtype"], one["tp"]) == (
        "cpu",
        "bfloat16",
        "bfloat16",
        1,
    )


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"tp": 2}, set()),
        ({"tp": 2, "load_format": "dummy"}, {"tp", "weights"}),
        ({"dtype": "float32"}, {"dtype", "kv_cache_dtype"}),
        ({"kv_cache_dtype": "int8"}, {"kv_cache_dtype"}),
        ({"lm_head_bits": 8}, {"lm_head_bits"}),
        ({"load_format": "dummy"}, {"weights"}),
    ],
)
def test_what_changes_the_bits_changes_it(fields: dict[str, Any], changed: set[str]) -> None:
    one, other = made_up(), made_up(**fields)
    assert {name for name in one if one[name] != other[name]} == changed


def test_ranks_that_do_not_divide_the_leaves_change_it(tmp_path: Path) -> None:
    model = str(make_checkpoint(tmp_path, heads=6, inner=48))
    assert [made_up(model=model, tp=tp)["tp"] for tp in (1, 2, 3, 6)] == [1, 1, 3, 6]


def test_another_model_and_other_code_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert made_up()["weights"] != made_up(model=str(make_checkpoint(tmp_path)))["weights"]
    package = tmp_path / "own_package"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(make_up, "_PACKAGES", ("own_package",))
    digests = [code_digest()]
    for text in ("x = 1", "x = 2"):
        (package / "room" / "module.py").write_text(text)
        digests.append(code_digest())
    (package / "room" / "module.py").rename(package / "module.py")
    digests.append(code_digest())
    assert len(set(digests)) == 4


class Handle:
    """A deployment handle whose replica is away for the first `num_failures` calls."""

    def __init__(self, num_failures: int) -> None:
        self.num_calls = 0
        self._num_failures = num_failures

    def __getattr__(self, method: str) -> Self:
        assert method == "make_up"
        return self

    async def remote(self) -> dict[str, Any]:
        self.num_calls += 1
        if self.num_calls <= self._num_failures:
            raise DeploymentUnavailableError(cast(Any, "MossServer"))
        return {"tp": 2}


async def test_a_replica_is_asked_until_one_answers_and_then_no_more() -> None:
    handle = Handle(num_failures=1)
    model = ReplicaProbe(cast(DeploymentHandle[Any], handle))
    assert await model.make_up() == {}, "a turn does not fail for it"
    assert await model.make_up() == await model.make_up() == {"tp": 2}
    assert handle.num_calls == 2


@pytest.mark.parametrize("num_ticks", range(5))
async def test_a_task_that_is_cancelled_while_it_gets_the_answer_ends(num_ticks: int) -> None:
    model = ReplicaProbe(cast(DeploymentHandle[Any], Handle(num_failures=0)))
    asking = asyncio.create_task(model.make_up())
    for _ in range(num_ticks):
        await asyncio.sleep(0)
    is_done = asking.done()
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled() != is_done
