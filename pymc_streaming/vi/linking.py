"""A linker whose functions are the same machine code whoever runs them.

What Numba compiles has with it a copy of all that it calls, optimised anew, for the cache; but the
process that compiled those callees has them already, and calls these. The copies add up in another
order, so the last bits of a result depended on what a process had compiled or loaded before.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from pytensor.link.numba.dispatch.basic import numba_njit
from pytensor.link.numba.linker import NumbaLinker

__all__ = ["ClosedLinker"]


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Machine code that calls its own copies of functions, by making them private."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage == llvm.Linkage.linkonce_odr:
                function.linkage = llvm.Linkage.internal
        super()._optimize_final_module()


class _Compiler(Compiler):  # type: ignore[misc]
    def define_pipelines(self) -> Any:
        state = self.state
        state.library = _Library(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()  # as Numba does where there is none yet
        return super().define_pipelines()


class ClosedLinker(NumbaLinker):  # type: ignore[misc]
    """PyTensor's, but for the last step."""

    def jit_compile(self, fn_and_cache: Any) -> Any:
        """Compile a whole graph: what is called from outside."""
        function, key = fn_and_cache
        if key is not None:  # not what PyTensor itself compiled of the same graph
            CACHED_SRC_FUNCTIONS[function.py_func] += "_closed"
        return numba_njit(
            function.py_func, final_function=True, cache=key is not None, pipeline_class=_Compiler
        )
