"""What comes after the blocks: the last norm, of the rows whose logits are wanted, and the head."""

from torch import Tensor

from moss_tp.kernels.base import Weight
from moss_tp.kernels.cuda.block import bias_of
from moss_tp.kernels.cuda.linear.gemm import multiply
from moss_tp.kernels.cuda.linear.norm import layer_norm
from moss_tp.kernels.cuda.workspace import HeadShape, Workspace


class CudaNorm:
    """See `NormKernel`."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float, workspace: Workspace) -> None:
        self._norm = (weight.detach(), bias.detach(), eps)
        self._workspace = workspace

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        out = self._workspace.take("chosen", (len(rows), x.shape[1]), x, x.dtype)
        layer_norm(x, self._norm, out, rows)
        return out


class CudaLinear:
    """See `Linear`. Meant for one linear of a model, its LM head: results of all are in one place
    of the workspace."""

    def __init__(self, weight: Weight, has_gelu: bool, workspace: Workspace) -> None:
        dense = weight.dense()
        self._weight, self._bias = dense.weight.detach(), bias_of(dense)
        self._has_gelu = has_gelu
        self._workspace = workspace
        workspace.serve(HeadShape(dense.inputs, dense.outputs))

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = self._workspace.rows("logits", x, len(self._weight))
        plain, gelu = (None, out) if self._has_gelu else (out, None)
        multiply(x, self._weight, self._bias, plain, gelu)
        return out if residual is None else out.add_(residual)
