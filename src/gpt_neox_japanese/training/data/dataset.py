"""Which tokens a training step sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.training.data.shards import ShardedTokens

__all__ = ["HeldOutWindows", "TrainingWindows", "positions"]


class TrainingWindows(Dataset[dict[str, Tensor]]):
    """The windows of a whole run in the order they are trained on; item i is the run's i-th.

    An epoch cuts the stream into windows of `window_size` tokens and visits each once, in an order
    of its own. It cuts from an offset of its own as well, so that a window's edge falls elsewhere
    each time. Item i depends on the seed and on i alone, not on the run's length: a resumed or
    lengthened run continues exactly where it was.

    Args:
        stream: The training tokens; or what gives the tokens of an epoch, if each has its own.
        window_size: Tokens of a window.
        num_windows: How many the run needs; more than the stream holds means several epochs.
        seed: Selects the orders and offsets.
        document_start: Id that every document begins with; if given, a window has `position_ids`
            that begin anew at each, by which the model keeps documents apart.

    Raises:
        DataError: The stream is shorter than a window.

    Example:
        >>> stream = ShardedTokens([np.arange(100)])
        >>> windows = TrainingWindows(stream, window_size=4, num_windows=60, seed=0)
        >>> windows[0]["input_ids"].shape, windows.windows_per_epoch
        (torch.Size([4]), 24)
    """

    def __init__(
        self,
        stream: ShardedTokens | Callable[[int], ShardedTokens],
        window_size: int,
        num_windows: int,
        seed: int,
        document_start: int | None = None,
    ) -> None:
        self._epochs = stream if callable(stream) else lambda _: stream
        self._stream = self._epochs(0)
        if len(self._stream) < window_size:
            raise DataError(
                f"{len(self._stream)} training tokens do not fill a window of {window_size}; "
                "give more text or a smaller --sequence-length"
            )
        # One window is given away for the offset.
        self.windows_per_epoch = max(len(self._stream) // window_size - 1, 1)
        self._window_size, self._num_windows, self._seed = window_size, num_windows, seed
        self._document_start = document_start
        self._epoch = -1
        self._offset = 0
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return self._num_windows

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`input_ids` and `labels`, the same int64 tensor [window_size]: the model shifts labels.

        `window` is the index, by which a batch can be named.
        """
        epoch, position = divmod(index, self.windows_per_epoch)
        if epoch != self._epoch:
            self._shuffle(epoch)
        start = self._offset + int(self._order[position % len(self._order)]) * self._window_size
        ids = self._stream.read(start, self._window_size)
        tokens = torch.from_numpy(ids)
        item = {"input_ids": tokens, "labels": tokens, "window": torch.tensor(index)}
        if self._document_start is not None:
            item["position_ids"] = torch.from_numpy(positions(ids, self._document_start))
        return item

    def _shuffle(self, epoch: int) -> None:
        self._stream = self._epochs(epoch)
        random = np.random.default_rng((self._seed, epoch))
        # An epoch that is encoded anew has a few windows more or less than the first.
        count = max(len(self._stream) // self._window_size - 1, 1)
        spare = len(self._stream) - count * self._window_size
        self._offset = int(random.integers(max(min(spare + 1, self._window_size), 1)))
        self._order = random.permutation(count)
        self._epoch = epoch


def positions(ids: NDArray[np.int64], document_start: int) -> NDArray[np.int64]:
    """How far each token is from the beginning of its document, or of the window.

    Args:
        ids: int64 [tokens].
        document_start: The id that begins a document.

    Returns:
        int64 [tokens].
    """
    index = np.arange(len(ids))
    starts = np.where(ids == document_start, index, 0)
    return index - np.maximum.accumulate(starts)


class HeldOutWindows(Dataset[dict[str, Tensor]]):
    """Consecutive windows that overlap by one token: every token but the first is predicted.

    Args:
        stream: The held-out tokens.
        window_size: Tokens of a window.
        max_tokens: At most about this many tokens, spread evenly over the stream.
    """

    def __init__(self, stream: ShardedTokens, window_size: int, max_tokens: int) -> None:
        self._stream, self._window_size = stream, window_size
        available = max(len(stream) - 1, 0) // (window_size - 1)
        self._count = min(available, max(max_tokens // window_size, 1))
        self._stride = available // self._count if self._count else 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`input_ids` and `labels`, the same int64 tensor [window_size], and a mask of ones.

        The mask says that an eos id at the start is text and no padding.
        """
        start = index * self._stride * (self._window_size - 1)
        tokens = torch.from_numpy(self._stream.read(start, self._window_size))
        mask = torch.ones_like(tokens)
        return {"input_ids": tokens, "labels": tokens, "attention_mask": mask}
