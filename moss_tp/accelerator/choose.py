"""The accelerator of a torch device."""

import torch

from moss_tp.accelerator.base import Accelerator
from moss_tp.accelerator.eager import EagerAccelerator


def accelerator_of(device: str | torch.device) -> Accelerator:
    """Of "cpu", "cuda" (the current one) or "cuda:1"."""
    chosen = torch.device(device)
    if chosen.type == "cpu":
        return EagerAccelerator()
    from moss_tp.accelerator.cuda import CudaAccelerator

    index = torch.cuda.current_device() if chosen.index is None else chosen.index
    return CudaAccelerator(torch.device("cuda", index))
