"""Dtype codes: the ints by which compiled kernels are given a tensor's dtype.

Each caller maps the torch dtypes that its own kernels handle.
"""

FP32, BF16, INT8, FP16 = 0, 1, 2, 3

ELEMENT_BYTES = {FP32: 4, BF16: 2, INT8: 1, FP16: 2}
