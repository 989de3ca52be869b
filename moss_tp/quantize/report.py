"""What a quantization tells: how far it is, and how good the result is."""

import sys
from dataclasses import asdict
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from moss_tp.fidelity.fidelity import Fidelity
from moss_tp.quantize.settings import QuantizeSettings

SOURCE, NEAREST, QUANTIZED = "source", "nearest", "quantized"


class Progress:
    """A bar with the time that is left, on stderr."""

    def __init__(
        self, total: int, done: int, *, is_shown: bool = True, title: str = "quantize"
    ) -> None:
        self._is_shown = is_shown
        self._bar = tqdm(total=total, initial=done, disable=not is_shown, desc=title, unit="step")

    def advance(self) -> None:
        self._bar.update()

    def say(self, text: str) -> None:
        """Prints a line for the user above the bar."""
        if self._is_shown:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


def report_fields(
    fidelities: dict[str, Fidelity], num_tokens: int, dampings: dict[str, float]
) -> dict[str, Any]:
    """The report as JSON; `dampings` by linear, of those whose Hessian needed more of it."""
    return {
        "held_out_tokens": num_tokens,
        **{name: asdict(fidelity) for name, fidelity in fidelities.items()},
        "raised_dampings": dampings,
    }


def report_lines(fields: dict[str, Any], settings: QuantizeSettings) -> list[str]:
    """The report as a table."""
    group = "" if settings.group_size == -1 else f", groups of {settings.group_size}"
    titles = {
        SOURCE: f"the model itself, in {settings.dtype}",
        NEAREST: f"{settings.bits} bits{group}, rounded to nearest",
        QUANTIZED: f"{settings.bits} bits{group}, as written",
    }
    lines = [f"{fields['held_out_tokens']:,} tokens of held-out text:"]
    for name, title in titles.items():
        found = fields[name]
        line = f"  {title:42} perplexity {found['perplexity']:.4f}"
        if name != SOURCE:
            line += f"   mean KL {found['kl']:.5f}   same top token {found['top1']:.2%}"
        lines.append(line)
    return lines
