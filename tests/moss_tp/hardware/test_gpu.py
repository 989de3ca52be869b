"""The limits of a GPU, measured on small tensors of the CPU."""

from dataclasses import astuple

import torch

from moss_tp.hardware.gpu import measure_gpu
from moss_tp.hardware.timing import graph_s, median_s

CPU = torch.device("cpu")


def test_all_rates_are_measured() -> None:
    rates = measure_gpu(CPU, "float32", 1 << 20, 1 << 20, ((64, 32),), (16,))
    assert (rates.card, rates.dtype) == ("CPU", "float32")
    assert all(rate > 1e6 for rate in astuple(rates)[2:])


def test_a_median_has_warm_ups_before_it() -> None:
    calls = [0]

    def run() -> None:
        calls[0] += 1

    assert 0 <= median_s(run, CPU, repeats=5) < 1
    assert calls[0] == 8
    assert graph_s(run, CPU, repeats=2) >= 0
    assert calls[0] == 13
