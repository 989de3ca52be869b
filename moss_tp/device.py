"""Every fact of the engine that differs by device, and queries of its memory and cores.

Kernels by device are in `kernels/`, collectives in `parallel/`, Ray's resources in `cluster/`.
Importing this module does not import torch.
"""

import os
from dataclasses import dataclass
from pathlib import Path

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class DeviceTraits:
    """One kind of device.

    `default_dtype` is what the server loads weights in. `step_timeout_s` is the default limit
    for a step of which nothing is known yet, `min_step_limit_s` the least limit of a known one, see
    `StepTimes`. A step that also decodes takes up to
    `mixed_prefill_tokens` of prompts. `row_cost` is the time that one more row adds to a step, as
    a share of a step of one row.

    The default KV cache is `kv_share` of the memory that is free then, but leaves `min_free` bytes,
    split between the ranks where they share it (`is_shared_memory`, or one GPU), and at most
    `max_kv_sequences` full-length sequences; None: four times as many as may run at once.
    """

    default_dtype: str
    step_timeout_s: float
    min_step_limit_s: float
    mixed_prefill_tokens: int
    row_cost: float
    kv_share: float
    min_free: int
    is_shared_memory: bool
    max_kv_sequences: int | None


TRAITS = {
    # bf16 halves the memory and the time to read the weights; kernels compute in fp32 where the
    # CPU has no bf16 arithmetic. A full step of the 16 B model (1024 tokens, 34 TFLOP) takes
    # minutes, and 128 rows of a prompt already reach the full rate.
    "cpu": DeviceTraits(
        default_dtype="bfloat16",
        step_timeout_s=600,
        min_step_limit_s=5,
        mixed_prefill_tokens=128,
        row_cost=0.1,
        kv_share=0.25,
        min_free=0,
        is_shared_memory=True,
        max_kv_sequences=8,
    ),
    # A decode takes milliseconds, whatever its limit; but a step that needs a kernel for the first
    # time, say that of a sampling setting, compiles it, for seconds each on a busy machine, and the
    # very first one compiles all of them. So a hang is noticed after 20 s, and no step that
    # compiles is taken for one.
    #
    # Published checkpoints are fp16. The largest step has its memory when the KV cache is made;
    # what that leaves is for kernels that are compiled later, and other users of the GPU.
    "cuda": DeviceTraits(
        default_dtype="float16",
        step_timeout_s=120,
        min_step_limit_s=20,
        mixed_prefill_tokens=1024,
        row_cost=0.02,
        kv_share=0.95,
        min_free=512 << 20,
        is_shared_memory=False,
        max_kv_sequences=None,
    ),
}
DEVICES = tuple(TRAITS)


def rank_device(device: str, rank: int) -> str:
    """The device of a rank that sees all devices of its machine."""
    return f"cuda:{rank}" if device == "cuda" else device


def num_gpus() -> int:
    """GPUs that this process sees."""
    import torch  # takes seconds

    return torch.cuda.device_count()


def free_memory(device: str) -> int:
    """Bytes free on `device` ("cpu", "cuda" or "cuda:1"); on CPU the page cache counts as free."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def threads_per_rank(tp_size: int, num_threads: int | None = None) -> int:
    """How many threads each of `tp_size` ranks on this machine computes with.

    `num_threads` if given, else OMP_NUM_THREADS if this process was started with it, else an
    equal share of the cores that this process may use: more threads than cores are slower.
    """
    if num_threads is not None:
        return num_threads
    wanted = _initial_environment().get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return max(1, len(os.sched_getaffinity(0)) // tp_size)


def _initial_environment() -> dict[str, str]:
    """The environment this process was started with. Ray sets OMP_NUM_THREADS later, in every
    worker, to the number of its logical CPUs, which is 1 for a rank."""
    path = Path("/proc/self/environ")
    if not path.exists():
        return dict(os.environ)
    entries = path.read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
