"""Small cards run fewer layers, or keep more weights on the host."""

from math import inf

import pytest
import torch

from moss_tp.gpu_check.parts import offload
from moss_tp.gpu_check.tools.fit import fitting, offloaded_gib, scale_of
from moss_tp.gpu_check.tools.shapes import MOSS
from moss_tp.hardware.gpu import GIB
from moss_tp.kernels.cuda.attention.cache import PagedFormat
from moss_tp.layers.kv_cache import KVCache


def test_layers_that_fit() -> None:
    assert fitting(MOSS, 30_000, inf) == MOSS == fitting(MOSS, 30_000, 78 * GIB)
    assert scale_of(MOSS) == ""
    small = fitting(MOSS, 30_000, 23 * GIB)
    assert 5 < small.layers < 15 and small.hidden == MOSS.hidden
    assert scale_of(small) == f"; {small.layers} of MOSS's 34 layers"
    with pytest.raises(RuntimeError, match="too few"):
        fitting(MOSS, 30_000, 4 * GIB)


def test_what_does_not_fit_stays_on_the_host() -> None:
    assert offloaded_gib(MOSS, 8, GIB, 78 * GIB) == 8
    # 31.1 GiB of weights, 1.7 of buffers, 1 of cache, 1.5 of others.
    assert offloaded_gib(MOSS, 8, GIB, 23 * GIB) == pytest.approx(12.3, abs=0.1)


def test_the_cache_beside_offloaded_weights_holds_a_sequence() -> None:
    """As the engine asks for it: all positions, and the spare block."""
    blocks = MOSS.positions // 16 + PagedFormat.spare_blocks
    needed = blocks * KVCache.bytes_per_block(MOSS.config, 1, 16, torch.float16, PagedFormat())
    assert GIB < needed <= offload.KV_BYTES
