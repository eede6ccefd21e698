"""Numbers that kernels and the files of quantised weights agree on."""

from __future__ import annotations

import numpy as np

__all__ = ["BFLOAT16_NAN", "BLOCK", "FLOAT_LANES", "GROUP", "MAX_FEW_ROWS", "QMAX"]

GROUP = 64  # columns of int4 that share a scale
QMAX = 2047  # the largest quantised activation: 12 bits with the sign

# The order of sums, and so a part of every result: columns of a block are added to FLOAT_LANES
# sums (int4: groups of a block each have their own), these in halves, and blocks one by one.
BLOCK = 512
FLOAT_LANES = 16

MAX_FEW_ROWS = 32  # rows of activations that GEMV multiplies; GEMM takes more

BFLOAT16_NAN = np.uint16(0x7FC0)  # what every NaN becomes in bfloat16
