"""Compiles kernels ahead of time, without a GPU, and says what each of them needs.

Programs of their own compile them, in parallel, for two reasons: a process in which Triton
interprets kernels has none that could be compiled, and a compiler that crashes takes only its
program along. What they compile is in Triton's cache afterwards.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from queue import SimpleQueue
from tempfile import TemporaryFile

from moss_tp.kernels.cuda.runtime.resources import Registers, read_registers, shared_limit
from moss_tp.kernels.cuda.runtime.spec import KernelSpec

# Specs by dtype ("float16"), head size and compute capability (90 is 9.0).
Catalogue = Callable[[str, int, int], Iterable[KernelSpec]]


@dataclass(frozen=True)
class Variant:
    """What a catalogue is asked for."""

    dtype: str
    head_dim: int
    cc: int


@dataclass(frozen=True)
class Cubin:
    """A compiled kernel. `spilled_bytes` of each thread lie in slow memory instead of registers.
    Where it did not compile, `error` says why."""

    name: str
    variant: Variant
    registers: int = 0
    spilled_bytes: int = 0
    shared_bytes: int = 0
    error: str = ""

    @property
    def fits(self) -> bool:
        """Whether a GPU of this compute capability can run it at all."""
        return not self.error and self.shared_bytes <= shared_limit(self.variant.cc)


def compile_spec(spec: KernelSpec, variant: Variant) -> Cubin:
    """Compiles here, in a process where Triton does not interpret."""
    try:
        return _compile(spec, variant)
    except Exception as error:  # the compiler's, of many kinds
        return Cubin(spec.name, variant, error=str(error) or repr(error))


def _compile(spec: KernelSpec, variant: Variant) -> Cubin:
    from moss_tp.kernels.cuda.runtime.source import source_of_spec

    kernel = source_of_spec(spec, variant.cc).compile(variant.cc)
    found: Registers = read_registers(kernel.asm["cubin"])
    shared = int(kernel.metadata.shared)
    return Cubin(spec.name, variant, found.registers, found.stack_bytes, shared)


def compile_all(
    catalogue: str, variants: Sequence[Variant], num_processes: int | None = None
) -> list[Cubin]:
    """All kernels of `catalogue` (`module:function`, see Catalogue), in its order.

    Raises RuntimeError if the catalogue cannot be read, or a compiler crashes.
    """
    found = compile_each(catalogue, variants, num_processes)
    return [cubin for _, cubin in sorted(found, key=lambda pair: pair[0])]


def compile_each(
    catalogue: str, variants: Sequence[Variant], num_processes: int | None = None
) -> Iterator[tuple[int, Cubin]]:
    """The same as soon as each is compiled, with its number in the catalogue's order."""
    count = num_processes or len(os.sched_getaffinity(0))
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    asked = json.dumps([asdict(variant) for variant in variants])
    lines: SimpleQueue[str | None] = SimpleQueue()
    with TemporaryFile("w+") as errors:
        programs = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, catalogue, asked, str(share), str(count)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            for share in range(count)
        ]
        for program in programs:
            threading.Thread(target=_pass_on, args=(program, lines), daemon=True).start()
        for _ in programs:
            while (line := lines.get()) is not None:
                yield _read(line)
        statuses = [program.wait() for program in programs]
        if any(statuses):
            errors.seek(0)
            raise RuntimeError(f"kernels were not compiled: {errors.read().strip()[-2000:]}")


def _pass_on(program: "subprocess.Popen[str]", lines: "SimpleQueue[str | None]") -> None:
    """All that it prints, then None."""
    assert program.stdout is not None
    with program.stdout as output:
        for line in output:
            lines.put(line)
    lines.put(None)


def _read(line: str) -> tuple[int, Cubin]:
    number, fields = json.loads(line)
    return number, Cubin(**{**fields, "variant": Variant(**fields["variant"])})


def main(catalogue: str, asked: str, share: int, count: int) -> None:
    """What a program of `compile_all` runs: every `count`-th kernel, from number `share` on; prints
    a JSON line for each."""
    module, _, function = catalogue.partition(":")
    specs: Catalogue = getattr(import_module(module), function)
    variants = [Variant(**fields) for fields in json.loads(asked)]
    jobs = [(spec, v) for v in variants for spec in specs(v.dtype, v.head_dim, v.cc)]
    for number in range(share, len(jobs), count):
        print(json.dumps((number, asdict(compile_spec(*jobs[number])))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
