"""A cloze: which of four continuations is the true one?

The questions are made of held-out works, the same ones for the same works. Unlike bits per
character the score is understood at once: chance gets 25 %.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gpt_neox_japanese.checks import check_integer
from gpt_neox_japanese.errors import DataError
from gpt_neox_japanese.evaluation.bits_per_character import check_scores
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["ClozeResult", "Question", "cloze", "make_questions"]

_CHOICES = 4

_DEVIATIONS = 1.96  # of a normal distribution, on both sides of its middle: 95 %

# Characters before the gap, and of a continuation.
_CONTEXT_CHARACTERS = 200
_MIN_CHARACTERS, _MAX_CHARACTERS = 15, 60

_SENTENCE = re.compile(rf"[^。！？\n]{{{_MIN_CHARACTERS - 1},{_MAX_CHARACTERS - 1}}}[。！？]")


@dataclass(frozen=True)
class Question:
    """A beginning and four continuations.

    Attributes:
        context: What stands before the gap.
        choices: Four sentences; the wrong ones are from elsewhere in the same works.
        answer: Index of the true one.
    """

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class ClozeResult:
    """How well a model did.

    Attributes:
        accuracy: Fraction of the questions that it answered rightly.
        low: The lower end of the interval that has the true fraction with 95 % certainty: what it
            would answer rightly of endlessly many such questions.
        high: The upper end.
        chance: The fraction that guessing gives.
        questions: Number of questions.
    """

    accuracy: float
    low: float
    high: float
    chance: float
    questions: int


def make_questions(texts: Iterable[str], number: int) -> list[Question]:
    """Make questions from texts: gaps spread over them, wrong sentences of about the true length.

    Everything is decided by the texts themselves, in their order, and by `number`.

    Args:
        texts: Held-out works.
        number: How many questions at most.

    Returns:
        The questions, in an order that only the texts decide.

    Raises:
        DataError: There are too few sentences, or `number` is not at least 1.
    """
    check_integer("number", number, DataError, minimum=1)
    gaps = [
        (text[max(0, found.start() - _CONTEXT_CHARACTERS) : found.start()], found.group())
        for text in texts
        for found in _SENTENCE.finditer(text, _CONTEXT_CHARACTERS)
    ]
    sentences = sorted({sentence for _, sentence in gaps}, key=lambda s: (len(s), _hash(s)))
    if len(sentences) < _CHOICES:
        raise DataError(
            f"{len(sentences)} sentences of {_MIN_CHARACTERS} to {_MAX_CHARACTERS} characters are "
            "too few for a cloze; give longer texts"
        )
    rank = {sentence: index for index, sentence in enumerate(sentences)}
    chosen = sorted(gaps, key=lambda gap: _hash("".join(gap)))[:number]
    return [_question(context, true, sentences, rank[true]) for context, true in chosen]


def cloze(model: PreTrainedModel, codec: Codec, questions: Iterable[Question]) -> ClozeResult:
    """Let a model answer: it takes the continuation with the fewest bits per character.

    Args:
        model: A causal language model, on the device where it shall run.
        codec: Its tokenizer.
        questions: At least one.

    Returns:
        The fraction of right answers, and how sure it is.

    Raises:
        DataError: There is no question, or a continuation has more tokens than the model reads.
        CheckpointError: The model's scores are not finite.
    """
    model.train(False)
    with torch.inference_mode():
        right = [_choice(model, codec, question) == question.answer for question in questions]
    if not right:
        raise DataError("there is no question to ask; make some of held-out texts")
    low, high = _interval(sum(right), len(right))
    return ClozeResult(sum(right) / len(right), low, high, 1 / _CHOICES, len(right))


def _interval(right: int, number: int) -> tuple[float, float]:
    """Wilson's score interval of a fraction, which also holds for few questions."""
    share, spread = right / number, _DEVIATIONS**2 / number
    centre = share + spread / 2
    half = math.sqrt(spread * (share * (1 - share) + spread / 4))
    return (centre - half) / (1 + spread), (centre + half) / (1 + spread)


def _question(context: str, true: str, sentences: Sequence[str], rank: int) -> Question:
    # Neighbours in the list of all sentences by length are nearly as long as the true one.
    near = range(max(0, rank - 16), min(len(sentences), rank + 17))
    others = sorted(
        (sentences[i] for i in near if i != rank), key=lambda other: _hash(context + other)
    )
    choices = sorted([true, *others[: _CHOICES - 1]], key=lambda each: _hash(each + context))
    return Question(context, tuple(choices), choices.index(true))


def _choice(model: PreTrainedModel, codec: Codec, question: Question) -> int:
    eos = codec.eot_token
    start = [eos, *codec.encode(question.context)]
    window = int(model.config.max_position_embeddings)
    rows = [codec.encode(choice) for choice in question.choices]
    longest = max(map(len, rows))
    if longest >= window:
        raise DataError(
            f"a continuation has {longest} tokens, and the model reads {window}; a cloze needs a"
            " model that reads more"
        )
    start = start[-(window - longest) :]
    inputs = torch.zeros(len(rows), len(start) + longest, dtype=torch.long)
    targets = torch.full_like(inputs, -100)
    for row, ids in enumerate(rows):
        inputs[row, : len(start) + len(ids)] = torch.tensor([*start, *ids])
        targets[row, len(start) : len(start) + len(ids)] = torch.tensor(ids)
    inputs, targets = inputs.to(model.device), targets.to(model.device)
    hidden = model.base_model(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False
    ).last_hidden_state
    head = cast(nn.Module, model.get_output_embeddings())
    # The last token of the beginning predicts the first of the continuation.
    logits = cast(Tensor, head(hidden[:, len(start) - 1 : -1]))[..., : len(codec)].float()
    nats = nn.functional.cross_entropy(
        logits.transpose(1, 2), targets[:, len(start) :], reduction="none"
    ).sum(1)
    lengths = torch.tensor([len(choice) for choice in question.choices], device=nats.device)
    check_scores(*nats.tolist())
    return int((nats / lengths).argmin())


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
