"""Products with a quantized weight, as ops: those that prepare x, then the product itself."""

from torch import Tensor

from moss_tp.kernels.cpu.linear.epilogue import GemmOutput
from moss_tp.kernels.cpu.linear.gather import add_gather, add_run_sums
from moss_tp.kernels.cpu.linear.gemm_kernel import MAX_TASK_ROWS
from moss_tp.kernels.cpu.linear.quantized_kernel import QUANTIZED_KERNELS, QuantizedParams
from moss_tp.kernels.cpu.linear.quantized_pack import QuantizedPanels
from moss_tp.kernels.cpu.microkernel.mul_add import GROUP
from moss_tp.kernels.cpu.runtime.program import Program


def quantized_kernel(weight: QuantizedPanels) -> int:
    return QUANTIZED_KERNELS[weight.mul_add, weight.bits]()


def add_quantized(
    program: Program, x: Tensor, weight: QuantizedPanels, *outputs: GemmOutput
) -> None:
    """See `gemm.add_gemm`, which checks x."""
    runs = weight.runs
    if runs.is_gathered:
        x = add_gather(program, x, runs.places)
    row_blocks = -(-len(x) // MAX_TASK_ROWS)
    params = QuantizedParams(
        x=x,
        x_stride=x.stride(0) * x.itemsize,
        num_rows=len(x),
        panels=weight.panels,
        starts=runs.starts,
        x_starts=runs.x_starts,
        spans=runs.spans,
        num_spans=len(runs.spans),
        levels=runs.levels,
        num_runs=len(runs.groups),
        scales=weight.scales,
        scales_stride=weight.scales.shape[2],
        bias=weight.bias,
        x_sums=add_run_sums(program, x, runs.starts, runs.x_starts) if weight.has_zeros else 0,
        row_blocks=row_blocks,
        first_groups=-(-outputs[0].out.shape[1] // GROUP),
    )
    tasks = len(weight.panels) * row_blocks
    program.add(quantized_kernel(weight), tasks, params, *(out.params() for out in outputs))
