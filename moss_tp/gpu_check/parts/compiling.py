"""Compiles every kernel for this card, in parallel."""

import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.parts.tokens import start_cpu_tokens
from moss_tp.gpu_check.tools.shapes import MOSS
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.kernels.cuda.catalogue import NAME
from moss_tp.kernels.cuda.runtime.cubins import Cubin, Variant, compile_each


def run(check: Check) -> None:
    cpu = start_cpu_tokens(check)  # which compiles kernels, too: the part `tokens` needs them
    cubins: list[Cubin] = []
    start = time.monotonic()
    for _, cubin in compile_each(NAME, _variants(check)):
        cubins.append(cubin)
        check.figure("cubins", [asdict(cubin) for cubin in cubins])  # so far
    check.figure("seconds of kernels", round(time.monotonic() - start, 1))
    check.verdict(_count("kernels that do not compile or fit", cubins, lambda c: not c.fits))
    check.verdict(_count("kernels that spill", cubins, lambda c: c.spilled_bytes > 0))
    cpu.wait()


def _variants(check: Check) -> list[Variant]:
    if not check.is_full:
        return [Variant("float16", MOSS.head_dim, 90)]
    cc = 90
    if check.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(check.device)
        cc = 10 * major + minor
    return [Variant(dtype, MOSS.head_dim, cc) for dtype in ("float16", "bfloat16", "float32")]


def _count(name: str, cubins: list[Cubin], is_at_fault: Callable[[Cubin], bool]) -> Verdict:
    names = [cubin.name for cubin in cubins if is_at_fault(cubin)]
    note = ", ".join(dict.fromkeys(names)) or f"of {len(cubins)}"
    return Verdict(name, len(names), bar=0, sense="at most", note=note)
