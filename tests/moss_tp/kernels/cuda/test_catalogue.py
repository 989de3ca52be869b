"""Every kernel compiles for every GPU that is served, within its registers and shared memory."""

import os
import sys
from pathlib import Path

import pytest

from moss_tp.kernels.cuda.catalogue import NAME
from moss_tp.kernels.cuda.runtime.cubins import Cubin, Variant, compile_all

OTHER_TRITON = "MOSS_OTHER_TRITON"
# On sm_100 too a kernel has to compile and to fit, but may spill: nothing was tuned for it.
WITHOUT_SPILLS = (80, 86, 90)
MOSS = [Variant("float16", 256, cc) for cc in (*WITHOUT_SPILLS, 100)]
OTHERS = [Variant("bfloat16", 256, 80), Variant("float32", 64, 86), Variant("float16", 64, 90)]


def faults(cubins: list[Cubin]) -> list[str]:
    return [
        f"{cubin.name} on {cubin.variant}: {cubin.error or cubin}"
        for cubin in cubins
        if not cubin.fits or (cubin.spilled_bytes and cubin.variant.cc in WITHOUT_SPILLS)
    ]


@pytest.mark.parametrize("variants", [MOSS, OTHERS], ids=["MOSS", "others"])
def test_all_fit_without_spills(variants: list[Variant]) -> None:
    cubins = compile_all(NAME, variants)
    assert {cubin.variant for cubin in cubins} == set(variants)
    assert not faults(cubins), "\n".join(faults(cubins))


@pytest.mark.variable(OTHER_TRITON)
@pytest.mark.parametrize("variants", [MOSS, OTHERS], ids=["MOSS", "others"])
def test_all_fit_with_another_triton(
    variants: list[Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of an unpacked wheel, as of the version that a GPU's machine has."""
    folder = os.environ[OTHER_TRITON]
    assert (Path(folder) / "triton").is_dir()
    monkeypatch.setattr(sys, "path", [folder, *sys.path])
    cubins = compile_all(NAME, variants)
    assert not faults(cubins), "\n".join(faults(cubins))


def test_a_spill_is_a_fault() -> None:
    probes = "tests.moss_tp.kernels.cuda.runtime.probe_kernels"
    assert len(faults(compile_all(f"{probes}:spills", [Variant("float16", 256, 90)]))) == 2
    assert len(faults(compile_all(f"{probes}:too_large", [Variant("float16", 256, 86)]))) == 1
