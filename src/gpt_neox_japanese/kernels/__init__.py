"""Compiled arithmetic that the engine, the model and quantised weights share: start with `gemv`.

`gemv` multiplies weights of every format by up to 32 rows of activations, `gemm` by more; their
inner loops are LLVM vectors (`llvm`). `ops` is what surrounds the products. `compile` says
how all of it is compiled, `code_libraries` how it is put together, `compile_cache` where it is
kept.
"""
