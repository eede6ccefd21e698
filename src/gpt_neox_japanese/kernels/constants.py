"""Numbers that kernels and the files of quantised weights agree on."""

from __future__ import annotations

__all__ = ["GROUP", "QMAX"]

GROUP = 64  # columns of int4 that share a scale
QMAX = 2047  # the largest quantised activation: 12 bits with the sign
