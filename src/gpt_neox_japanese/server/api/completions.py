"""`POST /v1/completions`: prompts continued."""

from __future__ import annotations

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gpt_neox_japanese.inference.outputs import TextChunk
from gpt_neox_japanese.server.api.answer import AnswerFormat, answer, written_tokens
from gpt_neox_japanese.server.api.logprobs import TokenNames, completion_logprobs, token_details
from gpt_neox_japanese.server.api.schema import CompletionRequest, read_body
from gpt_neox_japanese.server.api.submission import Submission
from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.generation import Generation
from gpt_neox_japanese.server.service import Service

__all__ = ["create_completion"]

_DEFAULT_MAX_TOKENS = 16


async def create_completion(service: Service, request: Request) -> Response:
    """Continue one or several prompts.

    Args:
        service: Whose model writes.
        request: With a `CompletionRequest` as its body.

    Returns:
        A completion, or its events.

    Raises:
        ApiError: The request cannot be taken.
    """
    model = service.model
    body = await read_body(request, CompletionRequest)
    model.check_name(body.model)
    n = body.n or 1
    best_of = body.best_of or n
    _check_best_of(body, n, best_of)
    prompt: Any = body.prompt
    is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
    ranks = best_of > n  # by log-probabilities, asked for or not
    wants_tokens = body.logprobs is not None or bool(body.token_details)
    submission = Submission(
        prompts=[prompt] if is_one else prompt,
        num_choices=best_of,
        max_tokens=_DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        logprobs=(body.logprobs or 0) if wants_tokens or ranks else None,
        echo=bool(body.echo),
    )
    form = _CompletionFormat(body, model.names, n, best_of)
    return await answer(service, request, body, submission, form)


def _check_best_of(body: CompletionRequest, n: int, best_of: int) -> None:
    """Refuse what is more than there is to choose from, or to be told before all is written."""
    if best_of < n:
        raise ApiError(400, f"best_of is {best_of}, below n, which is {n}", param="best_of")
    if body.stream and best_of > n:
        raise ApiError(400, "best_of cannot be streamed; leave one of them out", param="best_of")


class _CompletionFormat(AnswerFormat):
    """OpenAI's completion; with `token_details`, everything that is known of each token."""

    id_prefix = "cmpl"
    whole = chunk = "text_completion"

    def __init__(self, body: CompletionRequest, names: TokenNames, n: int, best_of: int) -> None:
        self._body = body
        self._names = names
        self._n = n
        self._best_of = best_of
        self._texts: dict[int, str] = {}  # so far
        self._scores: dict[int, list[float]] = {}
        self._scores_prompt = bool(body.echo) and (
            body.logprobs is not None or bool(body.token_details)
        )
        self._told_prompts: set[int] = set()
        self._told_ids: set[int] = set()

    def first_parts(self, _generation: Generation) -> list[dict[str, Any]]:
        return []

    def part(self, index: int, chunk: TextChunk, generation: Generation) -> dict[str, Any] | None:
        body = self._body
        tokens = written = written_tokens(chunk, generation, index)
        self._texts[index] = self._texts.get(index, "") + chunk.text
        if self._scores_prompt and index not in self._told_prompts:
            if not (written or chunk.finish_reason):
                return None  # the prompt's text, whose scores are there with the first token
            self._told_prompts.add(index)
            tokens = (*generation.streams[index].prompt_tokens, *written)
            chunk = chunk._replace(text=self._texts[index])
        if self._best_of > self._n:
            scores = (token.logprob or 0.0 for token in written)
            self._scores.setdefault(index, []).extend(scores)
        wants_tokens = body.logprobs is not None or body.token_details or body.return_token_ids
        if not (chunk.text or chunk.finish_reason or (tokens and wants_tokens)):
            return None
        part: dict[str, Any] = {
            "index": index,
            "text": chunk.text,
            "logprobs": None,
            "finish_reason": chunk.finish_reason,
        }
        if body.logprobs is not None:
            as_ids = bool(body.return_tokens_as_token_ids)
            part["logprobs"] = completion_logprobs(tokens, self._names, as_ids=as_ids)
        if body.return_token_ids:
            is_told = index in self._told_ids
            part["prompt_token_ids"] = None if is_told else generation.prompt_ids(index)
            self._told_ids.add(index)
            part["token_ids"] = [token.id for token in written]
        if body.token_details:
            part["token_details"] = token_details(tokens, self._names, self._texts[index])
        return part

    def choices(self, parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        whole = [_join(of_one) for of_one in parts]
        if self._best_of > self._n:
            groups = range(0, len(whole), self._best_of)
            whole = [
                whole[index]
                for start in groups
                for index in sorted(range(start, start + self._best_of), key=self._rank)[: self._n]
            ]
        for index, choice in enumerate(whole):
            choice["index"] = index
        return whole

    def _rank(self, index: int) -> float:
        """Lower is better: the mean log-probability of a token, as OpenAI ranks."""
        scores = self._scores.get(index)
        return -sum(scores) / len(scores) if scores else math.inf


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One choice out of its parts."""
    whole = dict(parts[0])
    for part in parts[1:]:
        whole["text"] += part["text"]
        whole["finish_reason"] = part["finish_reason"]
        if whole["logprobs"] is not None:
            whole["logprobs"] = {k: v + part["logprobs"][k] for k, v in whole["logprobs"].items()}
        for name in ("token_ids", "token_details"):
            if name in whole:
                whole[name] = whole[name] + part[name]
    return whole
