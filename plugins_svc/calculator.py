"""The calculator plugin: MOSS's `Calculate`, on the restricted evaluator, in this process.

Values read as Python prints them (`60/6` is `10.0`, `8*8` is `64`), as in MOSS's training data.
"""

from plugins_svc.arithmetic import ArithmeticRefusedError
from plugins_svc.evaluator import evaluate
from plugins_svc.sdk.output import PluginOutput


class Calculator:
    """Answers `Calculate("expression")` with the value's `str()`."""

    name = "calculator"
    call_name = "Calculate"

    async def run(self, argument: str) -> PluginOutput:
        """The value; no result for whatever the evaluator refuses."""
        try:
            return PluginOutput(True, (str(evaluate(argument)),))
        except ArithmeticRefusedError:
            return PluginOutput.no_result()

    def close(self) -> None:
        """Nothing is held."""
