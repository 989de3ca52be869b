"""Launches that are recorded instead of run, to compare what they compile with the specs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pytest

from moss_tp.kernels.cuda.runtime.source import Source, source_of, source_of_spec
from moss_tp.kernels.cuda.runtime.spec import KernelSpec


@dataclass
class Recorder:
    """Stands for a kernel: adds what a launch would compile to `found`."""

    function: Any
    cc: int
    found: list[Source] = field(default_factory=list)

    @property
    def arg_names(self) -> list[str]:
        return list(self.function.arg_names)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(0 < size < 65536 for size in grid[1:])

        def launch(*arguments: Any, **keywords: Any) -> None:
            values = dict(zip(self.arg_names, arguments, strict=False))
            values |= {name: keywords.pop(name) for name in self.arg_names if name in keywords}
            self.found.append(source_of(self.function, values, keywords, self.cc))

        return launch


def record(
    monkeypatch: pytest.MonkeyPatch, cc: int, *kernels: tuple[ModuleType, str]
) -> list[Source]:
    """What launches of the kernels compile from now on; none of them runs."""
    found: list[Source] = []
    for module, name in kernels:
        monkeypatch.setattr(module, name, Recorder(getattr(module, name), cc, found))
    return found


def distinct(sources: Iterable[Source]) -> list[Source]:
    """In one order. Sources have no hash."""
    kept: list[Source] = []
    for source in sources:
        if source not in kept:
            kept.append(source)
    return sorted(kept, key=repr)


def assert_compiled(specs: Iterable[KernelSpec], launched: Iterable[Source], cc: int) -> None:
    """Each launch runs a program of `specs`, each of which is launched. A spec whose aligned
    arguments are others is another program."""
    specs = list(specs)
    sources = [source_of_spec(spec, cc) for spec in specs]
    assert distinct(sources) == distinct(launched)
    for spec, source in zip(specs, sources, strict=True):
        for name in set(spec.aligned) & set(spec.signature):
            rest = tuple(other for other in spec.aligned if other != name)
            assert source_of_spec(replace(spec, aligned=rest), cc) != source, (spec.name, name)
