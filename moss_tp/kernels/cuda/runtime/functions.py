"""Functions of kernels, each in one order of operations."""

import triton.language as tl

from moss_tp.kernels.cuda.runtime.jit import jit


@jit
def gelu_tanh(x: tl.tensor) -> tl.tensor:
    """GELU by tanh (Hendrycks and Gimpel 2016), of fp32.

    x/2 (1 + tanh u) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3). The constants are
    -2 sqrt(2/pi) log2(e), and 0.044715 times it. exp2 is bounded, far below what counts beside 1.
    """
    slope = tl.fma(x * x, -0.10294324, -2.3022082)
    return x / (1.0 + tl.exp2(tl.minimum(x * slope, 126.0)))
