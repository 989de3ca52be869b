"""What comes after the blocks: the last norm, of the rows whose logits are wanted, and the head."""

from torch import Tensor

from moss_tp.kernels.base import Weight
from moss_tp.kernels.cuda.linear.norm import layer_norm
from moss_tp.kernels.cuda.products import product_of
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
        (self._product,) = product_of(weight)
        self._has_gelu = has_gelu
        self._workspace = workspace
        workspace.serve(HeadShape(weight.inputs, weight.outputs, self._product.arranged))

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        out = self._workspace.rows("logits", x, self._product.outputs)
        plain, gelu = (None, out) if self._has_gelu else (out, None)
        self._product.multiply(x, plain, gelu, self._workspace)
        return out if residual is None else out.add_(residual)
