"""The architecture: who imports whom, where heavy libraries live, and how full rooms are.

A room is a folder, or a single module where a folder holds modules of several levels. Every
import counts: at the top of a file, inside a function and under TYPE_CHECKING.
"""

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.homes import HOMES, TORCH_FREE
from tests.house import ROOMS

ROOT = Path(__file__).parents[1]
PACKAGES = ("moss_tp", "cluster", "plugins_svc", "serve_app")
MAX_FILES_IN_A_ROOM = 16
MAX_LINES_IN_A_FILE = 300
MAX_P90_FUNCTION_LINES = 20


def imported_names(source: str) -> Iterator[str]:
    """Dotted names of everything that `source` imports; `from a import b` counts as `a.b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{a.name}" for a in node.names)


def top_level_names(source: str) -> Iterator[str]:
    """Names imported when the module is loaded, without those under `if TYPE_CHECKING`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported_names(ast.unparse(node))


def room_of(path: str) -> str:
    """The room of the module at `path`: its own entry in ROOMS, else its folder."""
    return path if path in ROOMS else path.rpartition("/")[0]


@cache
def module_path(name: str) -> str | None:
    """The file of the longest prefix of a dotted name that is a module of ours."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return None
    for length in range(len(parts), 0, -1):
        base = "/".join(parts[:length])
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if (ROOT / path).is_file():
                return path
    return None


def violations(path: str, source: str) -> list[str]:
    """What the file at `path` (relative, posix) imports and may not."""
    return [reason for name in imported_names(source) if (reason := _objection(path, name))]


def _objection(path: str, name: str) -> str | None:
    if name.startswith("."):
        return f"{path} imports {name}: write the package's full name"
    if not _is_at_home(path, name):
        return f"{path} imports {name}: not one of its homes {_homes(name)}"
    target = module_path(name)
    if target is None or path.startswith("tests/"):
        return None
    own, other = room_of(path), room_of(target)
    if own == other or other in ROOMS.get(own, ()):
        return None
    return f"{path} imports {name}: the room {own} may not import {other}"


def _is_at_home(path: str, name: str) -> bool:
    homes = _homes(name)
    if homes is None or (path.startswith("tests/") and homes):
        return True
    return path.startswith(homes or ("-",))


def _homes(name: str) -> tuple[str, ...] | None:
    parts = name.split(".")
    prefixes = (".".join(parts[:i]) for i in range(len(parts), 0, -1))
    return next((HOMES[prefix] for prefix in prefixes if prefix in HOMES), None)


def python_files(*packages: str) -> list[str]:
    paths = (path for name in packages for path in ROOT.glob(f"{name}/**/*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def room_cycle(rooms: Mapping[str, set[str]]) -> list[str]:
    """The rooms of a cycle, none when imports go one way."""
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def function_lengths(source: str) -> list[int]:
    """Lines of every function's body, without its signature and docstring."""
    lengths = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lengths.append((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0)
    return lengths


def test_every_import_is_allowed() -> None:
    paths = python_files(*PACKAGES, "tests")
    found = [reason for path in paths for reason in violations(path, (ROOT / path).read_text())]
    assert not found, "\n".join(found)


def test_every_file_is_in_a_room() -> None:
    assert {room_of(path) for path in python_files(*PACKAGES)} == set(ROOMS)


def test_every_permission_is_used() -> None:
    """So that the table shows the house as it is."""
    used: set[tuple[str, str]] = set()
    for path in python_files(*PACKAGES):
        targets = map(module_path, imported_names((ROOT / path).read_text()))
        used |= {(room_of(path), room_of(target)) for target in targets if target}
    unused = {(room, other) for room, others in ROOMS.items() for other in others} - used
    assert not unused


def test_rooms_have_no_cycle() -> None:
    assert not room_cycle(ROOMS)


def test_modules_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for path in python_files(*PACKAGES):
        targets = map(module_path, imported_names((ROOT / path).read_text()))
        graph[path] = {target for target in targets if target and target != path}
    assert not room_cycle(graph)


def test_a_cycle_is_noticed() -> None:
    assert room_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("top", [*PACKAGES, "tests"])
def test_no_room_is_full(top: str) -> None:
    counts = Counter(path.rpartition("/")[0] for path in python_files(top))
    assert not {room: n for room, n in counts.items() if n > MAX_FILES_IN_A_ROOM}


def test_files_and_functions_are_short() -> None:
    lengths: list[int] = []
    for path in python_files(*PACKAGES, "tests"):
        source = (ROOT / path).read_text()
        assert source.count("\n") <= MAX_LINES_IN_A_FILE, f"{path} is too long"
        lengths += function_lengths(source) if not path.startswith("tests/") else []
    assert sorted(lengths)[len(lengths) * 9 // 10] <= MAX_P90_FUNCTION_LINES


def test_every_module_has_a_docstring() -> None:
    sources = {path: (ROOT / path).read_text() for path in python_files(*PACKAGES)}
    assert not [path for path, s in sources.items() if s and not ast.get_docstring(ast.parse(s))]


@pytest.mark.parametrize("module", TORCH_FREE)
def test_no_torch_by_way_of_others(module: str) -> None:
    seen: set[str] = set()
    queue = [module]
    while queue:
        name = queue.pop()
        path = module_path(name)
        if path is None or path in seen:
            continue
        seen.add(path)
        for imported in top_level_names((ROOT / path).read_text()):
            assert imported.split(".")[0] != "torch", f"{module} loads torch through {path}"
            queue.extend((imported, imported.rpartition(".")[0]))
    assert seen, "the module is gone"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("moss_tp/model.py", "import cluster.errors"),
        ("moss_tp/llm.py", "def f():\n    import ray"),
        ("moss_tp/engine/build.py", "from torch import distributed"),
        ("cluster/errors.py", "from serve_app.chat.turn import TurnRequest"),
        ("moss_tp/kernels/reference/block.py", "import numba"),
        ("moss_tp/kernels/base.py", "from moss_tp.layers.embedding import ParallelLMHead"),
        ("moss_tp/engine/scheduling/scheduler.py", "import moss_tp.engine.llm_engine"),
        ("cluster/errors.py", "import redis.asyncio as redis"),
        ("plugins_svc/registry.py", "from moss_tp import errors"),
        ("plugins_svc/calculator/spec.py", "import ray"),
        ("serve_app/chat/turn.py", "import serve_app.http.app"),
        ("serve_app/chat/reply.py", "import serve_app.sessions.store"),
        ("serve_app/settings.py", "if TYPE_CHECKING:\n    import torch"),
        ("serve_app/app.py", "from . import b"),
        ("serve_app/bench/a.py", "import matplotlib"),
        ("tests/a.py", "from unittest import mock"),
    ],
)
def test_a_wrong_import_is_noticed(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


def test_right_imports_are_not() -> None:
    assert not violations("serve_app/app.py", "import ray\nimport os\nfrom serve_app import errors")
    assert not violations("moss_tp/parallel/tp_group.py", "import torch.distributed as dist")
    assert not violations("tests/a.py", "import torch\nimport ray\nfrom cluster import errors")
