"""Which tokens a training step sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.tokenization.scoring_windows import ScoringWindow, count_windows, window_at
from gpt_neox_japanese.training.data.shards import ShardedTokens

__all__ = ["IGNORED", "HeldOutWindows", "TrainingWindows", "collate", "positions"]

IGNORED = -100
"""The label of what is not to be predicted, to torch and transformers."""

_CHUNK = 2**22


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
        # An epoch that is encoded anew may not even fill one window; `collate` fills up a batch.
        ids = self._stream.read(start, min(self._window_size, len(self._stream) - start))
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
    """The windows in which `neox-ja evaluate` reads the held-out text, or some of them.

    Each document is read from the end-of-text id before it to the one after it. A document longer
    than a window is read in windows that overlap by half.

    Args:
        stream: The held-out tokens, every document followed by the end-of-text id.
        eos_token_id: The end-of-text id.
        window_size: How many tokens the model reads.
        max_tokens: At most about so many tokens are predicted, in windows spread evenly over all.

    Attributes:
        num_tokens: How many tokens the windows predict.
    """

    def __init__(
        self, stream: ShardedTokens, eos_token_id: int, window_size: int, max_tokens: int
    ) -> None:
        self._stream, self._eos = stream, eos_token_id
        self._window, self._stride = window_size, max(window_size // 2, 1)
        ends = _document_ends(stream, eos_token_id)
        # Of each document, with the end-of-text id before it.
        self._starts = np.concatenate([[0], ends[:-1]]).astype(np.int64) - 1
        self._lengths = ends - self._starts
        windows = [
            count_windows(length, self._window, self._stride) for length in self._lengths.tolist()
        ]
        self._first = np.concatenate([[0], np.cumsum(windows, dtype=np.int64)])
        total = int(self._first[-1])
        wanted = math.ceil(total * max_tokens / max(len(stream), 1))
        count = min(total, max(wanted, 1))
        self._chosen = np.arange(count, dtype=np.int64) * total // max(count, 1)
        self.num_tokens = sum(self._at(index)[1].num_targets for index in range(count))

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`input_ids`, and `shift_labels`: what follows each of them, or -100 where it is context.

        Both are int64 [tokens]. A mask of ones says that an eos id at the start is text and no
        padding.
        """
        document, window = self._at(index)
        start = int(self._starts[document]) + window.start
        end = int(self._starts[document]) + window.end
        ids = self._stream.read(max(start, 0), end - max(start, 0))
        if start < 0:  # nothing stands before the first document
            ids = np.concatenate([[self._eos], ids])
        tokens = torch.from_numpy(ids)
        labels = tokens[1:].clone()
        labels[: len(labels) - window.num_targets] = IGNORED
        return {
            "input_ids": tokens[:-1],
            "shift_labels": labels,
            "attention_mask": torch.ones_like(labels),
        }

    def _at(self, index: int) -> tuple[int, ScoringWindow]:
        chosen = int(self._chosen[index])
        document = int(np.searchsorted(self._first, chosen, side="right")) - 1
        length, number = int(self._lengths[document]), chosen - int(self._first[document])
        return document, window_at(number, length, self._window, self._stride)


def collate(items: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Make a batch of windows, those that are shorter padded at their end.

    Args:
        items: What the datasets above give. A causal model's other positions see no padding.

    Returns:
        Name → int64 [windows, tokens], or [windows] for numbers.
    """
    fill = {"shift_labels": IGNORED, "labels": IGNORED}
    return {
        name: torch.stack([item[name] for item in items])
        if items[0][name].ndim == 0
        else pad_sequence([item[name] for item in items], True, fill.get(name, 0))
        for name in items[0]
    }


def _document_ends(stream: ShardedTokens, eos_token_id: int) -> NDArray[np.int64]:
    """Where each document of a stream ends, behind its end-of-text id."""
    ends = [
        np.flatnonzero(stream.read(start, min(_CHUNK, len(stream) - start)) == eos_token_id)
        + start
        + 1
        for start in range(0, len(stream), _CHUNK)
    ]
    found = np.concatenate([*ends, np.empty(0, np.int64)]).astype(np.int64)
    if len(stream) and (not len(found) or found[-1] < len(stream)):
        found = np.append(found, len(stream))  # the last document was cut off
    return found
