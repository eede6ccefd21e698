"""What one step scores: some tokens of each text, put together to as few calls as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpt_neox_japanese.inference.network import BatchToken
from gpt_neox_japanese.inference.scheduler.prompt_lookup import MAX_DRAFT
from gpt_neox_japanese.inference.scheduler.request import Request

__all__ = ["Batch", "Span", "batches_of"]

_MIN_ROWS_OF_PROMPTS = 8  # that are read in a step, whatever is written in it
_ROWS_WITH_DRAFTS = MAX_DRAFT + 1


class Span(NamedTuple):
    """The tokens that a step reads of one text.

    Attributes:
        request: Whose text.
        ids: Ids that follow what the slot holds; the last ones may be drafts.
        scored: So many at the end are scored.
    """

    request: Request
    ids: list[int]
    scored: int


class Batch(NamedTuple):
    """Spans that are scored together: at most as many tokens as the network takes at once.

    Attributes:
        spans: The spans.
        tokens: All their tokens, those that are only read first.
        num_without_logits: How many are only read.
    """

    spans: list[Span]
    tokens: list[BatchToken]
    num_without_logits: int


def batches_of(running: Sequence[Request], max_rows: int) -> list[Batch]:
    """Put together the next step of some requests.

    Those that write take one token each, and drafts where there is room. What is then left of the
    last batch is filled with prompts, those of the first requests first; if that is too little, a
    batch more is.

    Args:
        running: Requests whose long prompts are computed; each has a slot.
        max_rows: Tokens of a batch.

    Returns:
        Batches that together hold a span of each request that writes.
    """
    writing = [request for request in running if request.is_writing]
    room = max(_ROWS_WITH_DRAFTS - len(writing), 0) // max(len(writing), 1)
    spans = [_next_span(request, room) for request in writing]
    batches: list[list[Span]] = []
    free = 0
    for span in spans:
        if len(span.ids) > free:
            batches.append([])
            free = max_rows
        batches[-1].append(span)
        free -= len(span.ids)
    reading = [request for request in running if not request.is_writing]
    if reading and free < min(_MIN_ROWS_OF_PROMPTS, reading[0].num_uncomputed):
        batches.append([])
        free = max_rows
    for request in reading:
        if free:
            span = _prompt_span(request, free)
            batches[-1].append(span)
            free -= len(span.ids)
    return [_batch(spans) for spans in batches]


def _next_span(request: Request, room: int) -> Span:
    draft = request.draft(room)
    return Span(request, [request.ids[-1], *draft], 1 + len(draft))


def _prompt_span(request: Request, room: int) -> Span:
    count = min(request.num_uncomputed, room)
    ids = request.ids[request.num_computed : request.num_computed + count]
    if request.prompt_logprobs is not None:
        return Span(request, ids, count)
    return Span(request, ids, 1 if count == request.num_uncomputed else 0)


def _batch(spans: list[Span]) -> Batch:
    read: list[BatchToken] = []
    scored: list[BatchToken] = []
    for request, ids, count in spans:
        assert request.slot is not None
        for index, token_id in enumerate(ids):
            token = BatchToken(token_id, request.slot, request.num_computed + index)
            (read if index < len(ids) - count else scored).append(token)
    return Batch(spans, read + scored, len(read))
