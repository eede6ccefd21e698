"""Numbers that kernels and the files of quantised weights agree on."""

from __future__ import annotations

import numpy as np

__all__ = ["BFLOAT16_NAN", "BLOCK", "FLOAT_LANES", "GROUP", "MAX_FEW_ROWS", "QMAX"]

GROUP = 64  # columns of int4 that share a scale
QMAX = 2047  # the largest quantised activation: 12 bits with the sign

# The order of sums of floats, and so a part of their results: columns of a block are added to
# FLOAT_LANES sums, these in halves, and blocks one by one. Sums of integers are exact.
BLOCK = 512
FLOAT_LANES = 16

MAX_FEW_ROWS = 32  # rows of activations that GEMV multiplies; GEMM takes more

BFLOAT16_NAN = np.uint16(0x7FC0)  # what every NaN becomes in bfloat16
