"""Kernels are compiled without a GPU; spills and too much shared memory are noticed."""

import pytest

from moss_tp.kernels.cuda.runtime.cubins import Cubin, Variant, compile_all

PROBES = "tests.moss_tp.kernels.cuda.runtime.probe_kernels"


def compiled(catalogue: str, *capabilities: int) -> list[Cubin]:
    variants = [Variant("float16", 256, cc) for cc in capabilities]
    return compile_all(f"{PROBES}:{catalogue}", variants, num_processes=2)


def test_all_are_compiled_in_order() -> None:
    found = compiled("fits", 80, 90, 100)
    expected = [(name, cc) for cc in (80, 90, 100) for name in ("copy", "small product")]
    assert [(cubin.name, cubin.variant.cc) for cubin in found] == expected
    assert all(cubin.fits and not cubin.spilled_bytes for cubin in found)
    assert all(0 < cubin.registers < 255 for cubin in found)
    assert found[1].shared_bytes > found[0].shared_bytes == 0


def test_spills_are_noticed() -> None:
    found = compiled("spills", 80, 86, 90)
    assert len(found) == 6 and all(cubin.spilled_bytes > 0 for cubin in found)


def test_too_much_shared_memory_is_noticed() -> None:
    (cubin,) = compiled("too_large", 86)
    assert not cubin.error and not cubin.fits


def test_a_kernel_that_does_not_compile_costs_only_itself() -> None:
    copy, wrong = compiled("wrong", 90)
    assert copy.fits and not copy.error
    assert "incompatible dimensions" in wrong.error and not wrong.fits


def test_a_catalogue_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="no attribute 'none'"):
        compiled("none", 90)
