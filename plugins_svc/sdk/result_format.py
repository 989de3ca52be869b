"""How the answer to a call is written into Results: one block a call.

`ResultFormat` is the plain form; a plugin whose block looks different overrides parts of it. It
formats one call. The order of blocks and the numbering over a turn belong to protocol/results.py.
"""

from collections.abc import Sequence

from plugins_svc.sdk.output import PluginOutput

NO_RESULT = "No result."


class ResultFormat:
    """`CALL =>`, then the output's lines, each on its own line."""

    def count_items(self, output: PluginOutput, num_calls: int) -> int:
        """How many numbered items of `output` are shown when a turn has `num_calls` such calls."""
        return 0

    def value(self, output: PluginOutput, numbers: range) -> str:
        """The answer as the model reads it; its shown items get `numbers`."""
        return "\n".join(output.lines) if output.ok and output.lines else NO_RESULT

    def block(self, call: str, output: PluginOutput, numbers: range) -> str:
        """The block of `call` (as Commands write it), without a newline at either end."""
        return f"{call} =>\n{self.value(output, numbers)}"

    def body(self, outputs: Sequence[PluginOutput]) -> str | None:
        """A special Results body for a turn that calls only this plugin; None for blocks."""
        return None
