"""Bits per character: how many bits a model needs to store a text.

Unlike perplexity per token, the number can be compared between models with different vocabularies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from gpt_neox_japanese.checks import check_integer
from gpt_neox_japanese.errors import CheckpointError, DataError
from gpt_neox_japanese.tokenization.scoring_windows import count_windows, window_at
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["LanguageModelMetrics", "bits_per_character", "check_scores"]


@dataclass(frozen=True)
class LanguageModelMetrics:
    """How well a model predicts some texts.

    Attributes:
        bits_per_character: Bits for a Unicode character.
        bits_per_byte: Bits for a byte of UTF-8.
        perplexity: Per token; only comparable between models with the same vocabulary. Infinite
            from 710 nats a token on, where no float holds it.
        documents: Number of texts.
        characters: Unicode characters of the texts.
        bytes: UTF-8 bytes of the texts.
        tokens: Predicted tokens, the end of each text among them.
    """

    bits_per_character: float
    bits_per_byte: float
    perplexity: float
    documents: int
    characters: int
    bytes: int
    tokens: int


@dataclass(frozen=True)
class _Window:
    """`ids`, int32 [tokens], of which the last `num_targets` are to be predicted."""

    ids: NDArray[np.int32]
    num_targets: int


def bits_per_character(
    model: PreTrainedModel,
    codec: Codec,
    texts: Iterable[str],
    *,
    stride: int | None = None,
    batch_size: int = 8,
) -> LanguageModelMetrics:
    """Measure a causal language model on texts, each on its own.

    A text is read from the end-of-text id, as in training, where it precedes every document, to
    the end-of-text id that closes it. Texts longer than the model's window are read in windows
    that overlap: each predicts `stride` tokens and knows at least `window - stride` before them.

    Args:
        model: A causal language model, on the device where it shall run.
        codec: The model's tokenizer.
        texts: Read one by one.
        stride: Half the model's window when None; smaller is slower and gives fewer bits.
        batch_size: Windows in one forward pass.

    Returns:
        The metrics of all texts together.

    Raises:
        DataError: There is no text at all, `stride` is not between 1 and the window, or
            `batch_size` is not at least 1.
        CheckpointError: The model's scores are not finite.
    """
    window = int(model.config.max_position_embeddings)
    stride = window // 2 if stride is None else stride
    if not 1 <= stride <= window:
        raise DataError(f"stride {stride} is not between 1 and the model's window, {window}")

    check_integer("batch_size", batch_size, DataError, minimum=1)
    sizes = _TextSizes()
    nats = 0.0
    batch: list[_Window] = []
    model.train(False)
    with torch.inference_mode():
        for item in _windows(texts, codec, window, stride, sizes):
            batch.append(item)
            if len(batch) == batch_size:
                nats += _negative_log_likelihood(model, batch, len(codec))
                batch = []
        if batch:
            nats += _negative_log_likelihood(model, batch, len(codec))
    if not sizes.characters:
        raise DataError("there is no text to evaluate on")
    bits = nats / math.log(2)
    return LanguageModelMetrics(
        bits_per_character=bits / sizes.characters,
        bits_per_byte=bits / sizes.bytes,
        perplexity=_exp(nats / sizes.tokens),
        documents=sizes.documents,
        characters=sizes.characters,
        bytes=sizes.bytes,
        tokens=sizes.tokens,
    )


def _exp(number: float) -> float:
    try:
        return math.exp(number)
    except OverflowError:
        return math.inf


@dataclass
class _TextSizes:
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0


def _windows(
    texts: Iterable[str], codec: Codec, window: int, stride: int, sizes: _TextSizes
) -> Iterator[_Window]:
    eos = codec.eot_token
    for text in texts:
        ids = np.concatenate([[eos], codec.encode_to_numpy(text), [eos]]).astype(np.int32)
        sizes.documents += 1
        sizes.characters += len(text)
        sizes.bytes += len(text.encode())
        sizes.tokens += len(ids) - 1
        for index in range(count_windows(len(ids), window, stride)):
            start, end, num_targets = window_at(index, len(ids), window, stride)
            yield _Window(ids[start:end], num_targets)


def _negative_log_likelihood(model: PreTrainedModel, batch: list[_Window], num_ids: int) -> float:
    """The negative log-likelihood of all target tokens of a batch, in nats.

    Logits from `num_ids` on belong to rows that only pad the model; they are left out.
    """
    device = model.device
    length = max(len(item.ids) for item in batch) - 1
    inputs = torch.zeros(len(batch), length, dtype=torch.long)
    targets = torch.full_like(inputs, -1)
    for row, item in enumerate(batch):
        size = len(item.ids) - 1
        ids = torch.from_numpy(item.ids.astype(np.int64))
        # Padding stands on the right, where a causal model's earlier positions cannot see it.
        inputs[row, :size] = ids[:-1]
        targets[row, size - item.num_targets : size] = ids[1:][-item.num_targets :]
    targets = targets.to(device)
    inputs = inputs.to(device)
    hidden = model.base_model(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False
    ).last_hidden_state
    # The head is the most expensive part of a small model: only for the target positions.
    chosen = targets >= 0
    head = cast(nn.Module, model.get_output_embeddings())
    logits = cast(Tensor, head(hidden[chosen]))[:, :num_ids]
    nats = float(
        torch.nn.functional.cross_entropy(logits.float(), targets[chosen], reduction="sum")
    )
    check_scores(nats)
    return nats


def check_scores(*nats: float) -> None:
    """Refuse what a broken model says of texts.

    Args:
        *nats: Sums of the negative logarithms of probabilities.

    Raises:
        CheckpointError: One of them is NaN or infinite.
    """
    if not all(map(math.isfinite, nats)):
        raise CheckpointError(
            "the model's scores are not finite: its weights are broken, or its training diverged;"
            " measure an earlier checkpoint"
        )
