"""Registers and stack frames are read from cubins as NVIDIA's own program reads them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moss_tp.kernels.cuda.runtime.resources import KIB, read_registers, shared_limit

COMPILE = """
import sys
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from tests.moss_tp.kernels.cuda.runtime.probe_kernels import fits, spills

print(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump")
for number, spec in enumerate([*fits("", 0, 0), *spills("", 0, 0)]):
    source = ASTSource(spec.function, dict(spec.signature), dict(spec.constants), {})
    for cc in (80, 100):
        kernel = triton.compile(source, target=GPUTarget("cuda", cc, 32), options={"num_warps": 1})
        (Path(sys.argv[1]) / f"{number}-{cc}.cubin").write_bytes(kernel.asm["cubin"])
"""


def test_they_are_what_cuobjdump_says(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", COMPILE, str(tmp_path)]
    cuobjdump = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    cubins = sorted(tmp_path.glob("*.cubin"))
    assert len(cubins) == 8
    spilled = 0
    for cubin in cubins:
        call = [cuobjdump.decode().strip(), "-res-usage", str(cubin)]
        said = subprocess.run(call, capture_output=True, text=True, check=True).stdout
        ((registers, stack),) = re.findall(r"REG:(\d+) STACK:(\d+)", said)
        found = read_registers(cubin.read_bytes())
        assert (found.registers, found.stack_bytes) == (int(registers), int(stack))
        spilled += found.stack_bytes > 0
    assert spilled >= 2


@pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF\x01\x01" + bytes(60)])
def test_what_is_no_cubin(content: bytes) -> None:
    with pytest.raises(ValueError, match="no cubin"):
        read_registers(content)


def test_an_elf_file_that_is_no_cubin() -> None:
    with pytest.raises(ValueError, match=r"no section \.nv\.info"):
        read_registers(Path(sys.executable).resolve().read_bytes())


def test_limits_of_shared_memory() -> None:
    assert shared_limit(80) == 163 * KIB
    assert shared_limit(86) == shared_limit(89) == 99 * KIB
    assert shared_limit(90) == shared_limit(100) == shared_limit(101) == 227 * KIB
    with pytest.raises(ValueError, match="below 80"):
        shared_limit(75)
