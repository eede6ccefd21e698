"""How the code of compiled functions is optimized and put together: once, in what Python calls.

Numba optimizes every function and makes machine code of it, and then optimizes it once more in each
function that calls it, and in each that calls that. Of what stands eight calls deep the machine
code of one place is ever run. So the functions inside leave their code as Numba wrote it; the one
that Python calls links it in and optimizes all of it.
"""
# Numba's own functions carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

__all__ = ["EntryCompiler", "InnerCompiler"]


class _EntryLibrary(JITCodeLibrary):
    """Code that is optimized when it is complete, not its functions before that."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def add_linking_library(self, library: Any) -> None:
        """Take the code of a function that is called, and of all that it calls."""
        super().add_linking_library(library)
        if isinstance(library, _InnerLibrary):
            for called in library._linking_libraries:
                if called not in self._linking_libraries:
                    self._linking_libraries.append(called)


class _InnerLibrary(_EntryLibrary):
    """Code that waits to be linked into another library. There is nothing of it to call."""

    def finalize(self) -> None:
        """Leave it as it is."""
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """None, as of any function that Python cannot call."""
        return 0

    @property
    def codegen(self) -> Any:
        """What Numba tells where the function's environment is."""
        return self

    def set_env(self, env_name: str, env: Any) -> None:
        """Without machine code there is no place for it; nor do our functions use one."""


class EntryCompiler(Compiler):
    """Compiles a function that Python calls: `pipeline_class` of `numba.njit`."""

    library_class = _EntryLibrary

    def define_pipelines(self) -> Any:
        """Numba's own; what they write goes into a library of ours."""
        codegen = self.state.targetctx.codegen()
        self.state.library = self.library_class(codegen, self.state.func_id.func_qualname)
        self.state.library.enable_object_caching()
        return super().define_pipelines()


class InnerCompiler(EntryCompiler):
    """Compiles a function that compiled functions call."""

    library_class = _InnerLibrary
