"""From a request's fields to texts that the engine writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt_neox_japanese.errors import GenerationError, QueueFullError, TokenizationError
from gpt_neox_japanese.inference.sampling.params import SamplingParams
from gpt_neox_japanese.inference.text_stream import TextStream
from gpt_neox_japanese.server.api.schema import SamplingRequest
from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.generation import Generation
from gpt_neox_japanese.server.service import ServedModel, Service

__all__ = ["Submission", "submit"]

_CHARACTERS_AT_ONCE = 500  # which are tokenized sooner than a thread is woken


@dataclass(frozen=True)
class Submission:
    """What is to be written.

    Attributes:
        prompts: Texts, or token ids.
        num_choices: Continuations of each.
        max_tokens: Of each.
        logprobs: How many likeliest ids are told beside each token's own; None for none.
        echo: Whether each text begins with its prompt.
        param: The field that the prompts were in.
    """

    prompts: Sequence[str] | Sequence[Sequence[int]]
    num_choices: int
    max_tokens: int
    logprobs: int | None
    echo: bool = False
    param: str = "prompt"


async def submit(service: Service, body: SamplingRequest, submission: Submission) -> Generation:
    """Begin all texts of a request, or none.

    Args:
        service: Whose model writes.
        body: How tokens are chosen.
        submission: What is written.

    Returns:
        The texts, those of the first prompt first.

    Raises:
        ApiError: A prompt or an option cannot be used, or the queue is full.
    """
    model = service.model
    characters = 0
    for prompt in submission.prompts:
        if isinstance(prompt, str):
            if len(prompt) > model.max_prompt_characters:
                raise model.too_long(f"the prompt has {len(prompt)} characters", submission.param)
            characters += len(prompt)
    try:
        params = _sampling_params(model, body, submission.logprobs)
        if characters <= _CHARACTERS_AT_ONCE:
            return _begin(model, body, submission, params)
        async with model.tokenizing:
            return await asyncio.to_thread(_begin, model, body, submission, params)
    except QueueFullError:
        raise service.queue_full() from None
    except (GenerationError, TokenizationError) as error:
        raise _refusal(error, body, submission) from None


def _begin(
    model: ServedModel, body: SamplingRequest, submission: Submission, params: SamplingParams
) -> Generation:
    """Tokenize, and hand everything to the engine; may run in any thread."""
    streams: list[TextStream] = []
    prompt_ids = []
    try:
        for prompt in submission.prompts:
            ids = model.codec.encode(prompt) if isinstance(prompt, str) else list(prompt)
            if len(ids) + min(submission.max_tokens, 1) > model.max_model_len:
                raise model.too_long(f"the prompt has {len(ids)} tokens", submission.param)
            prompt_ids.append(ids)
            for number in range(submission.num_choices):
                stream = model.generator.stream_details(
                    prompt if submission.echo and isinstance(prompt, str) else ids,
                    max_new_tokens=submission.max_tokens,
                    stop=body.stop,
                    seed=None if body.seed is None else (body.seed + number) % 2**64,
                    echo=submission.echo,
                    sampling_params=params,
                    prompt_logprobs=submission.logprobs if submission.echo else None,
                )
                streams.append(stream)
    except BaseException:
        for stream in streams:
            stream.close()
        raise
    return Generation(streams, prompt_ids)


def _sampling_params(
    model: ServedModel, body: SamplingRequest, logprobs: int | None
) -> SamplingParams:
    """What the checkpoint recommends, with what the request says in its place."""
    same = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty")
    given: dict[str, Any] = {name: getattr(body, name) for name in (*same, "presence_penalty")}
    given["top_k"] = None if body.top_k is None else max(body.top_k, 0)
    given["min_new_tokens"] = body.min_tokens
    if body.logit_bias is not None:
        given["logit_bias"] = {int(key): value for key, value in body.logit_bias.items()}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(model.generator.sampling_params, **changes, logprobs=logprobs)


def _refusal(error: Exception, body: SamplingRequest, submission: Submission) -> ApiError:
    """An error of the engine's, with the field that it is about."""
    message = str(error)
    named = message.partition(" ")[0]
    return ApiError(
        400, message, param=named if named in type(body).model_fields else submission.param
    )
