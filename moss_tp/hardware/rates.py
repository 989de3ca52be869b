"""What a GPU was measured to do. No torch."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class GpuRates:
    """Bytes and operations a second. `copy_bytes_s` counts what is read and what is written,
    `read_bytes_s` is of reading alone, `flops_s` of products in `dtype` by cuBLAS, where a
    multiply-add is two operations, `pinned_bytes_s` of copies from pinned host memory."""

    card: str
    dtype: str
    copy_bytes_s: float
    read_bytes_s: float
    flops_s: float
    pinned_bytes_s: float

    def times(self, num_gpus: int) -> "GpuRates":
        """What so many GPUs do together, each with memory of its own."""
        return replace(
            self,
            copy_bytes_s=self.copy_bytes_s * num_gpus,
            read_bytes_s=self.read_bytes_s * num_gpus,
            flops_s=self.flops_s * num_gpus,
            pinned_bytes_s=self.pinned_bytes_s * num_gpus,
        )
