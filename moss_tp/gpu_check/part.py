"""The parts of the check, in their order."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A module of the package `home` with a function `run(check)`. It is killed after `limit_s`
    seconds. Parts that it `needs` run before it even if they were not asked for."""

    name: str
    title: str
    limit_s: float
    needs: tuple[str, ...] = ()
    home: str = "moss_tp.gpu_check.parts"


# Long ones that could hang come late, so that they cannot take the time of those before them.
# `tokens` and `ranks` compile the CPU's kernels, where `compiling` has not.
PARTS = (
    Part("compiling", "kernels compiled for this card: registers, spills, shared memory", 90),
    Part("limits", "what this card can do: bandwidth, matrix products, pinned memory", 25),
    Part("parity", "each kernel against its reference, over poisoned outputs", 60),
    Part("tokens", "a small model in fp32: the CPU's tokens, whatever the settings", 90),
    Part("bits", "a row's logits, however it is computed", 40),
    Part("speed", "decode and prefill of 16.7 B parameters in fp16", 80, ("limits",)),
    Part("quantized", "the same with blocks of 4 and 8 bits", 60, ("limits",)),
    Part("memory", "memory of the process at 2,048 tokens", 30),
    Part("sampler", "the device's sampler against the CPU's", 25),
    Part("host", "the host's own work in a decode step", 20),
    Part("hangs", "a kernel that never ends is noticed", 30),
    Part("ranks", "two ranks on one card; NCCL in a graph", 90),
    Part("peers", "cuBLAS and torch's attention at the same work", 30, ("limits",)),
    Part("race", "int4 products beside humming-kernels', where that is installed", 50),
    Part("offload", "weights streamed from pinned host memory", 50, ("limits",)),
)


def chosen_parts(names: list[str]) -> list[Part]:
    """The parts of these names and those that they need, in order; all of them for no names.

    Raises ValueError, with the names that exist, for another one."""
    known = {part.name: part for part in PARTS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"there is no part {unknown[0]}: choose from {', '.join(known)}")
    wanted = {need for name in names for need in (name, *known[name].needs)} or set(known)
    return [part for part in PARTS if part.name in wanted]
