"""What encoding gives: arrays, never lists of lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Encoding", "Ragged"]


class Encoding(NamedTuple):
    """The ids of a text and where each came from.

    Attributes:
        ids: int32 [tokens].
        offsets: int32 [tokens, 2]: start and end of each token in characters of the source text,
            end excluded. The byte tokens of one character all have its offsets.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class Ragged:
    """The ids of several texts, one after the other. `ragged[i]` are those of text i, as a view.

    Attributes:
        ids: int32 [total].
        bounds: int64 [texts + 1]; the ids of text i are `ids[bounds[i] : bounds[i + 1]]`.
    """

    ids: NDArray[np.int32]
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        index = range(len(self))[index]
        return self.ids[self.bounds[index] : self.bounds[index + 1]]

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        bounds = self.bounds.tolist()
        return (self.ids[start:end] for start, end in pairwise(bounds))
