"""How much disk space a quantization takes, and whether it is there."""

import shutil
from math import prod

from moss_tp.errors import ConfigError
from moss_tp.quantize.output import Output
from moss_tp.quantize.settings import QuantizeSettings
from moss_tp.quantize.source import Source, linear_shapes

_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "BOOL": 1}
_OTHERS = 64 << 20  # tokenizer, config, headers
_GIB = 1 << 30


def check_space(
    settings: QuantizeSettings, source: Source, output: Output, activations: int
) -> None:
    """`activations` are bytes of those between two blocks. Raises ConfigError."""
    # The next ones are written before the last ones are removed.
    needed = model_bytes(settings, source) + 2 * activations + _OTHERS - output.num_bytes
    free = shutil.disk_usage(output.partial).free
    if free < needed:
        raise ConfigError(
            f"{output.partial} needs {needed / _GIB:.1f} GiB more, and {free / _GIB:.1f} GiB are "
            "free there"
        )


def model_bytes(settings: QuantizeSettings, source: Source) -> int:
    """Of the quantized model's weight files."""
    linears = sum(
        _quantized_bytes(settings, *shape) for shape in linear_shapes(source.config).values()
    )
    return source.config.num_layers * linears + source.num_bytes_beside_linears(_ITEM_BYTES)


def _quantized_bytes(settings: QuantizeSettings, inputs: int, outputs: int) -> int:
    groups = inputs // settings.group_of(inputs)
    levels = prod((inputs + groups, outputs, settings.bits)) // 8  # and the groups' zero points
    return levels + groups * outputs * 2 + inputs * 4
