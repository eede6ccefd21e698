"""Memory that begins at a cache line."""

import numpy as np
import pytest

from gpt_neox_japanese.kernels.aligned import aligned


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int8])
@pytest.mark.parametrize("size", [(1,), (3, 64), (2, 5, 7)])
def test_it_begins_at_a_line_and_has_the_size(dtype: type, size: tuple[int, ...]) -> None:
    array = aligned(size, dtype)
    assert (array.shape, array.dtype) == (size, np.dtype(dtype))
    assert array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable
