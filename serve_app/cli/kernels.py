"""`moss kernels`: what each CUDA kernel needs of a GPU. It compiles them; no GPU is needed."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from moss_tp.device import DTYPES
from moss_tp.errors import ConfigError
from serve_app.cli.capabilities import Capabilities

if TYPE_CHECKING:
    from moss_tp.kernels.cuda.runtime.cubins import Cubin

MOSS_HEAD_DIM = 256
_KIB = 1024


@click.command(name="kernels")
@click.option("--cc", type=Capabilities(), default="80,86,90,100", show_default=True)
@click.option("--dtype", type=click.Choice(DTYPES), default="float16", show_default=True)
@click.option("--head-dim", type=click.IntRange(1), default=MOSS_HEAD_DIM, show_default=True)
def command(cc: tuple[int, ...], dtype: str, head_dim: int) -> None:
    """Compile the CUDA kernels and show their registers, shared memory and spills.

    The status is 1 if a kernel does not compile, spills registers or needs more shared memory than
    a GPU of that compute capability has.
    """
    if find_spec("triton") is None:
        raise ConfigError("Triton, which compiles the kernels, is not installed")
    from moss_tp.kernels.cuda.catalogue import NAME
    from moss_tp.kernels.cuda.runtime.cubins import Variant, compile_all

    cubins = compile_all(NAME, [Variant(dtype, head_dim, capability) for capability in cc])
    click.echo(table(cubins))
    if not all(cubin.fits and not cubin.spilled_bytes for cubin in cubins):
        raise click.exceptions.Exit(1)


def table(cubins: "list[Cubin]") -> str:
    """A Markdown table with a line a kernel."""
    width = max(len(cubin.name) for cubin in cubins)
    head = f"| {'kernel':{width}} |  cc | registers | shared KiB | spilled bytes |"
    line = f"| {'-' * width} | --: | --------: | ---------: | ------------: |"
    return "\n".join([head, line, *(_line(cubin, width) for cubin in cubins)])


def _line(cubin: "Cubin", width: int) -> str:
    name = f"| {cubin.name:{width}} | {cubin.variant.cc:3} |"
    if cubin.error:
        return f"{name} does not compile: {' '.join(cubin.error.split())[:200]} |"
    note = "" if cubin.fits else " too much"
    shared = f"{cubin.shared_bytes / _KIB:.1f}{note}"
    return f"{name} {cubin.registers:9} | {shared:>10} | {cubin.spilled_bytes:13} |"
