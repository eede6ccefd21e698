"""How int4 weights lie in memory: two to a byte, in an order that the kernels unpack quickly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.kernels.constants import GROUP

__all__ = ["SCALE", "pack_int4", "unpack_int4"]

SCALE = "_scale"  # what is added to a tensor's name for its scales

_SHIFTS = np.array([[0], [4], [8], [12]], dtype=np.uint16)  # of the nibbles of a word


def pack_int4(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Pack weights as value + 8 in nibbles, two to a byte.

    The 32 bytes of a group of 64 are 16 little-endian words; nibble h of word i, from the lowest,
    is column 16 h + i.

    Args:
        values: From -8 to 7, [outputs, columns]; columns a multiple of GROUP.

    Returns:
        uint8 [outputs, columns / 2].
    """
    nibbles = (values + 8).astype(np.uint16).reshape(len(values), -1, 4, GROUP // 4)
    words: NDArray[np.uint16] = np.bitwise_or.reduce(nibbles << _SHIFTS, axis=2)
    return words.astype("<u2").view(np.uint8).reshape(len(values), -1)


def unpack_int4(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Undo `pack_int4`.

    Args:
        packed: uint8 [outputs, columns / 2].

    Returns:
        int8 [outputs, columns], from -8 to 7.
    """
    words = np.ascontiguousarray(packed).view("<u2").reshape(len(packed), -1, 1, GROUP // 4)
    nibbles = (words >> _SHIFTS) & np.uint16(15)
    values: NDArray[np.int8] = nibbles.astype(np.int8) - np.int8(8)
    return values.reshape(len(packed), -1)
