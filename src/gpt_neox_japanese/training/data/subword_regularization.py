"""Subword regularisation: the training text, encoded into other tokens in every epoch.

The text is what the stored ids stand for, so nothing but the prepared corpus is needed. Each epoch
is encoded when it begins, into a file without a name that goes with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.tokenization.arrays import token_dtype
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.shards import ShardedTokens

__all__ = ["SubwordDropoutEpochs"]

_CHUNK = 2**20


class SubwordDropoutEpochs:
    """Encodes the text anew for every epoch, with dropout as BPE-dropout has it.

    The same seed, epoch and text give the same tokens.

    Args:
        stream: The training tokens, every document followed by the end-of-text id.
        codec: What they were encoded with.
        eos_token_id: The end-of-text id.
        dropout: Probability of passing over the best piece wherever there is a choice.
        seed: Selects the draws.
    """

    def __init__(
        self, stream: ShardedTokens, codec: Codec, eos_token_id: int, dropout: float, seed: int
    ) -> None:
        self._stream, self._codec, self._eos = stream, codec, eos_token_id
        self._dropout, self._seed = dropout, seed
        self._epoch = -1
        self._tokens = stream

    def __call__(self, epoch: int) -> ShardedTokens:
        """The tokens of an epoch, counted from 0; the last one asked for is kept."""
        if epoch != self._epoch:
            self._tokens = self._encode_epoch(epoch)
            self._epoch = epoch
        return self._tokens

    def _encode_epoch(self, epoch: int) -> ShardedTokens:
        dtype = token_dtype(len(self._codec))
        eos = np.array([self._eos], dtype)
        # No name, so nothing is left behind whatever ends the process.
        with tempfile.TemporaryFile() as file:
            for number, ids in enumerate(self._documents()):
                seed = int(np.random.SeedSequence((self._seed, epoch, number)).generate_state(1)[0])
                pieces = self._codec.encode_to_numpy(
                    self._codec.decode(ids), dropout=self._dropout, seed=seed
                )
                file.write(pieces.astype(dtype).tobytes() + eos.tobytes())
            file.flush()
            return ShardedTokens([np.memmap(file, dtype, mode="r")])

    def _documents(self) -> Iterator[NDArray[np.int64]]:
        """The ids of each document, without the end-of-text id."""
        rest: list[NDArray[np.int64]] = []
        for start in range(0, len(self._stream), _CHUNK):
            ids = self._stream.read(start, min(_CHUNK, len(self._stream) - start))
            *documents, last = np.split(ids, np.flatnonzero(ids == self._eos) + 1)
            for document in documents:
                yield np.concatenate([*rest, document])[:-1]
                rest = []
            rest.append(last)
        if sum(map(len, rest)):
            yield np.concatenate(rest)
