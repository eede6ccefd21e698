"""Which conversations a training step sees, whole ones packed into windows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.training.data.conversations import Conversations
from gpt_neox_japanese.training.data.dataset import IGNORED

__all__ = ["ConversationWindows", "HeldOutConversations"]


class ConversationWindows(Dataset[dict[str, Tensor]]):
    """The windows of a whole run in the order they are trained on; item i is the run's i-th.

    An epoch puts all conversations into an order of its own and fills windows with them, one after
    the other, beginning a new window where the next does not fit: none is cut, but one that is
    longer than a window ends where the window does. Attention and positions begin anew with each.
    Item i depends on the seed and on i alone, so a resumed or lengthened run continues exactly.

    Args:
        conversations: What is learned.
        window_size: Tokens of a window.
        num_windows: How many the run needs; more than an epoch has means several epochs.
        seed: Selects the orders.
        filler: The id that fills up a window; it is neither seen nor learned.

    Raises:
        DataError: No conversation has an answer that begins within a window.
    """

    def __init__(
        self,
        conversations: Conversations,
        window_size: int,
        num_windows: int,
        seed: int,
        filler: int,
    ) -> None:
        self._conversations = conversations
        self._window_size, self._num_windows, self._seed = window_size, num_windows, seed
        self._filler = filler
        self._useful = _with_answers(conversations, window_size)
        self._first_windows = [0]  # of each epoch, and of the one after the last that was packed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)
        self._begins: list[int] = []
        self._pack(0)
        self.windows_per_epoch = len(self._begins)

    def __len__(self) -> int:
        return self._num_windows

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`input_ids`, `labels`, `position_ids`, int64 [window_size]; the model shifts labels.

        `window` is the index, by which a batch can be named.
        """
        while index >= self._first_windows[-1]:
            self._pack(len(self._first_windows) - 1)
        epoch = int(np.searchsorted(self._first_windows, index, side="right")) - 1
        if epoch != self._epoch:
            self._pack(epoch)
        number = index - self._first_windows[epoch]
        ends = [*self._begins[1:], len(self._order)]
        members = self._order[self._begins[number] : ends[number]]
        item = _window(self._conversations, members, self._window_size, self._filler)
        return {**item, "window": torch.tensor(index)}

    def _pack(self, epoch: int) -> None:
        """Say which conversations stand in which window of an epoch."""
        random = np.random.default_rng((self._seed, epoch))
        self._order = random.permutation(self._useful)
        lengths = np.minimum(self._conversations.lengths[self._order], self._window_size)
        self._begins = _first_of_each_window(lengths, self._window_size)
        self._epoch = epoch
        if epoch == len(self._first_windows) - 1:
            self._first_windows.append(self._first_windows[-1] + len(self._begins))


class HeldOutConversations(Dataset[dict[str, Tensor]]):
    """The held-out conversations in their order, packed alike; what is measured are the answers.

    Args:
        conversations: What is not learned.
        window_size: Tokens of a window.
        max_tokens: At most about this many tokens are predicted, spread evenly.
        filler: The id that fills up a window.

    Attributes:
        num_tokens: How many tokens the windows predict.

    Raises:
        DataError: There are conversations, and none has an answer within a window.
    """

    def __init__(
        self, conversations: Conversations, window_size: int, max_tokens: int, filler: int
    ) -> None:
        self._conversations, self._window_size, self._filler = conversations, window_size, filler
        useful = np.empty(0, np.int64)
        if len(conversations):
            useful = _with_answers(conversations, window_size, "held-out ")
        every = max(1, -(-conversations.num_answer_tokens // max_tokens))
        useful = useful[::every]
        lengths = np.minimum(conversations.lengths[useful], window_size)
        begins = _first_of_each_window(lengths, window_size)
        self._members = np.split(useful, begins[1:]) if begins else []
        self.num_tokens = sum(
            int(conversations.read(index, window_size)[1].sum()) for index in useful.tolist()
        )

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`input_ids`, `position_ids`, and `shift_labels`: what follows each, -100 if no answer.

        All are int64 [window_size].
        """
        members = self._members[index]
        item = _window(self._conversations, members, self._window_size, self._filler)
        labels = item.pop("labels")
        following = torch.cat([labels[1:], labels.new_full((1,), IGNORED)])
        return {**item, "shift_labels": following}


def _with_answers(
    conversations: Conversations, window_size: int, kind: str = ""
) -> NDArray[np.int64]:
    """Those of which something is learned within a window, in order."""
    useful = np.flatnonzero(conversations.have_answers(window_size))
    if not len(useful):
        raise DataError(
            f"no {kind}conversation has an answer within {window_size} tokens; give a larger"
            " --sequence-length"
        )
    return useful


def _first_of_each_window(lengths: NDArray[np.int64], window_size: int) -> list[int]:
    begins: list[int] = []
    room = 0
    for number, length in enumerate(lengths.tolist()):
        if length > room:
            begins.append(number)
            room = window_size
        room -= length
    return begins


def _window(
    conversations: Conversations, members: NDArray[np.int64], size: int, filler: int
) -> dict[str, Tensor]:
    """One window with some whole conversations."""
    ids = np.full(size, filler, np.int64)
    labels = np.full(size, IGNORED, np.int64)
    positions = np.zeros(size, np.int64)
    done = 0
    for member in members.tolist():
        said, is_answer = conversations.read(member, size)
        part = slice(done, done + len(said))
        ids[part] = said
        labels[part] = np.where(is_answer, said, IGNORED)
        positions[part] = np.arange(len(said))
        done = part.stop
    positions[done:] = np.arange(size - done)
    arrays = {"input_ids": ids, "labels": labels, "position_ids": positions}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
