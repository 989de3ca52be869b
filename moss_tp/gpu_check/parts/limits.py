"""What this card can do, measured: all later parts are judged by it."""

from dataclasses import asdict

from moss_tp.gpu_check.check import Check
from moss_tp.gpu_check.verdict import Verdict
from moss_tp.hardware.gpu import measure_gpu
from moss_tp.hardware.rates import GpuRates


def run(check: Check) -> None:
    if check.is_full:
        rates = measure_gpu(check.device, "float16")
    else:
        rates = measure_gpu(check.device, "float32", 1 << 22, 1 << 20, ((64, 64),), (16,))
    check.figure("rates", asdict(rates))
    for name, value in (
        ("copy, read and write", rates.copy_bytes_s),
        ("reading alone", rates.read_bytes_s),
        ("from pinned host memory", rates.pinned_bytes_s),
    ):
        check.verdict(Verdict(name, value / 1e9, "GB/s"))
    check.verdict(Verdict(f"matrix products in {rates.dtype}", rates.flops_s / 1e12, "TFLOP/s"))


def rates_of(check: Check) -> GpuRates:
    """What `run` has found."""
    return GpuRates(**check.found("limits", "rates"))
