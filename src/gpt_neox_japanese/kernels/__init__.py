"""Compiled arithmetic that the engine, the model and quantised weights share.

`products` multiplies activations by stored matrices, `ops` is what surrounds that. `compile` says
how all of it is compiled, `code_libraries` how it is put together, `compile_cache` where that is
kept, and `llvm` writes what Numba has no words for.
"""
