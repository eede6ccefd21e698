"""Arithmetic that is compiled: what the engine, the model and quantised weights have in common.

`rows` does what surrounds matrix products, `multiply` the products of a few rows with weights in
every format, out of `tiles` that are written in LLVM's `vectors`.
"""
