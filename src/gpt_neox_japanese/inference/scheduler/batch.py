"""What one step scores: some tokens of each text, put together to as few calls as possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpt_neox_japanese.inference.network import MAX_ROWS, BatchToken
from gpt_neox_japanese.inference.scheduler.request import Request

__all__ = ["Batch", "Span", "batches_of"]


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
    """Spans that are scored together: at most MAX_ROWS tokens.

    Attributes:
        spans: The spans.
        tokens: All their tokens, those that are only read first.
        num_without_logits: How many are only read.
    """

    spans: list[Span]
    tokens: list[BatchToken]
    num_without_logits: int


def batches_of(running: Sequence[Request]) -> list[Batch]:
    """Put together the next step of some requests.

    Those that write take one token each, and drafts where there is room. What is then left
    of the last group is filled with prompts.

    Args:
        running: Requests whose long prompts are computed; each has a slot.

    Returns:
        Batches that together hold a span of each request.
    """
    writing = [request for request in running if request.is_writing]
    room = max(MAX_ROWS - len(writing), 0) // max(len(writing), 1)
    spans = [_next_span(request, room) for request in writing]
    groups: list[list[Span]] = []
    free = 0
    for span in spans:
        if len(span.ids) > free:
            groups.append([])
            free = MAX_ROWS
        groups[-1].append(span)
        free -= len(span.ids)
    for request in running:
        if not request.is_writing:
            if not free:
                groups.append([])
                free = MAX_ROWS
            span = _prompt_span(request, free)
            groups[-1].append(span)
            free -= len(span.ids)
    return [_group(spans) for spans in groups]


def _next_span(request: Request, room: int) -> Span:
    draft = request.draft(room)
    return Span(request, [request.ids[-1], *draft], 1 + len(draft))


def _prompt_span(request: Request, room: int) -> Span:
    count = min(request.num_uncomputed, room)
    ids = request.ids[request.num_computed : request.num_computed + count]
    if request.scores_prompt:
        return Span(request, ids, count)
    return Span(request, ids, 1 if count == request.num_uncomputed else 0)


def _group(spans: list[Span]) -> Batch:
    read: list[BatchToken] = []
    scored: list[BatchToken] = []
    for request, ids, count in spans:
        assert request.slot is not None
        for index, token_id in enumerate(ids):
            token = BatchToken(token_id, request.slot, request.num_computed + index)
            (read if index < len(ids) - count else scored).append(token)
    return Batch(spans, read + scored, len(read))
