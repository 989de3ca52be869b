"""Functions of kernels, compiled only as parts of a kernel.

Numba compiles each function by itself, and optimises it with all that it calls: so what lies deep
in a kernel goes through LLVM once for every function around it, and each of them becomes machine
code that nobody runs. Here a function stays as it was lowered, and the kernel that it is linked
into is optimised once. Attention's then takes a third of the time, and engines are as fast as
before (docs/performance.md).

Such functions cannot print, or call each other in a circle. Python cannot call them. This module
replaces parts of Numba that are not its public interface, in the version that we pin.
"""

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering


class _Library(JITCodeLibrary):
    """LLVM IR that other libraries link."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True  # and no machine code


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):
    _name = "lowering_to_be_linked"

    def __init__(self) -> None:
        NativeLowering.__init__(self)

    def run_pass(self, state: Any) -> bool:
        state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        # What Python would call: Numba wants a builtin for each. This one raises KeyError.
        state.cr = state.cr._replace(cfunc=set().pop)
        state.targetctx.insert_user_function(state.cr.cfunc, state.cr.fndesc, [state.library])
        return True


class Linked(CompilerBase):
    """A `pipeline_class`."""

    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.passes = [
            (_Lowering if step is NativeLowering else step, why) for step, why in pipeline.passes
        ]
        pipeline.finalize()
        return [pipeline]
