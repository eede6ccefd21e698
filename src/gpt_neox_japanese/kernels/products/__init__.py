"""Activations times stored matrices, in every format: start with `gemv`.

`gemv` multiplies by up to 32 rows of activations (`few_rows` how they share what is read), `gemm`
by more. Their inner loops are `microkernel` and `gemm_microkernel`, and `widen` makes numbers to
multiply of stored ones.
"""
