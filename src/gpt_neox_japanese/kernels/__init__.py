"""Arithmetic that is compiled: what the engine, the model and quantised weights have in common.

`ops` does what surrounds matrix products, `gemv` the products of a few rows with weights in every
format, out of the tiles of `microkernel`, which are written in LLVM's vectors (`llvm`). `compile`
says how all of it is compiled and kept.
"""
