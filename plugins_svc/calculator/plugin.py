"""The calculator: answers MOSS's `Calculate` with the restricted evaluator, in this process.

Values are written as Python prints them (`60/6` is `10.0`, `8*8` is `64`), as in MOSS's training
data.
"""

from plugins_svc.calculator.evaluator import evaluate
from plugins_svc.expressions.arithmetic import ArithmeticRefusedError
from plugins_svc.sdk.output import PluginOutput


class Calculator:
    """Answers `Calculate("expression")` with the value's `str()`."""

    async def ready(self) -> str:
        """Nothing: it is ready at once."""
        return ""

    async def run(self, argument: str) -> PluginOutput:
        """The value; no result for an expression that the evaluator refuses."""
        try:
            return PluginOutput(True, (str(evaluate(argument)),))
        except ArithmeticRefusedError:
            return PluginOutput.no_result()

    async def check(self) -> None:
        """Does nothing: a calculator that runs is whole."""

    def close(self) -> None:
        """Does nothing: a calculator holds no resources."""
