"""The calculator as a plugin: its names, and its one-line block `Calculate("5^3") => '125'`."""

from plugins_svc.calculator.plugin import Calculator
from plugins_svc.expressions.arithmetic import MAX_CHARS
from plugins_svc.sdk.arguments import at_most
from plugins_svc.sdk.output import PluginOutput
from plugins_svc.sdk.result_format import ResultFormat
from plugins_svc.sdk.spec import PluginSpec


class QuotedFormat(ResultFormat):
    """The value, or `No result.`, in quotes on the line of the call."""

    def value(self, output: PluginOutput, numbers: range) -> str:
        """`'125'`."""
        return f"'{super().value(output, numbers)}'"

    def block(self, call: str, output: PluginOutput, numbers: range) -> str:
        """`Calculate("5^3") => '125'`."""
        return f"{call} => {self.value(output, numbers)}"


CALCULATOR = PluginSpec(
    name="calculator",
    call_name="Calculate",
    label="Calculator",
    parameter="expression",
    check_argument=at_most(MAX_CHARS),
    create=lambda settings: Calculator(),
    result_format=QuotedFormat(),
)
