"""Dtype codes: the ints by which compiled kernels are given a tensor's dtype."""

import torch

FP32, BF16, INT8, FP16 = 0, 1, 2, 3
_CODES = {torch.float32: FP32, torch.bfloat16: BF16, torch.int8: INT8, torch.float16: FP16}


def dtype_code(dtype: torch.dtype) -> int:
    """Raises KeyError for a dtype that no kernel reads."""
    return _CODES[dtype]
