"""The equation solver as a plugin. Its block lists the roots, one a line: `x_0 = -2`."""

from plugins_svc.equation_solver.plugin import EquationSolver
from plugins_svc.expressions.arithmetic import MAX_CHARS
from plugins_svc.sdk.arguments import at_most
from plugins_svc.sdk.spec import PluginSpec

EQUATION_SOLVER = PluginSpec(
    name="equation_solver",
    call_name="Solve",
    label="Equation solver",
    parameter="equation",
    check_argument=at_most(MAX_CHARS),
    create=lambda settings: EquationSolver(),
)
