"""From a request's fields to texts that the engine writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpt_neox_japanese.errors import (
    ArgumentError,
    GenerationError,
    QueueFullError,
    TokenizationError,
)
from gpt_neox_japanese.inference.sampling.params import SamplingParams, nth_seed
from gpt_neox_japanese.inference.text_stream import TextStream
from gpt_neox_japanese.server.api.schema import SamplingRequest
from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.generation import Generation
from gpt_neox_japanese.server.service import ServedModel, Service
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate

__all__ = ["Conversation", "Submission", "submit"]

# What the event loop does itself, in a millisecond or two, as no thread has to be woken for it:
# the time of so many characters. A text takes that of a hundred and of its stop strings, each of
# its biases that of three.
_MAX_WITHOUT_THREAD = 500
_CHARACTERS_OF_A_TEXT = 100
_CHARACTERS_OF_A_BIAS = 3

# What the engine calls a field, and what a request does.
_FIELDS = {
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "prompt_logprobs": "logprobs",
}


@dataclass(frozen=True)
class Conversation:
    """A prompt that a chat template makes.

    Attributes:
        template: Renders the messages.
        messages: What was said.
    """

    template: ChatTemplate
    messages: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        """Characters of the messages."""
        return sum(len(message["content"]) for message in self.messages)

    def encode(self) -> list[int]:
        """Render and tokenize; may run in any thread.

        Returns:
            The ids of the prompt.

        Raises:
            ApiError: The template refuses the messages.
        """
        try:
            return self.template.encode(self.messages)
        except (ArgumentError, TokenizationError) as error:
            raise ApiError(400, str(error), param="messages") from None


@dataclass(frozen=True)
class Submission:
    """What is to be written.

    Attributes:
        prompts: Texts, token ids, or conversations, which are rendered when their places are kept.
        num_choices: Continuations of each.
        max_tokens: Of each.
        logprobs: How many likeliest ids are told beside each token's own; None for none.
        echo: Whether each text begins with its prompt.
        param: The field that the prompts were in.
    """

    prompts: Sequence[str] | Sequence[Sequence[int]] | Sequence[Conversation]
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
    for prompt in submission.prompts:
        is_text = isinstance(prompt, (str, Conversation))
        if is_text and len(prompt) > model.max_prompt_characters:
            whose = "the prompt has" if isinstance(prompt, str) else "the messages have"
            what = f"{whose} {len(prompt)} characters"
            raise model.too_long(what, submission.param, submission.max_tokens)
    streams: list[TextStream] = []
    try:
        try:
            if _is_small(body, submission):
                prompts = _begin(streams, model, body, submission)
            else:
                prompts = await model.in_thread(_begin, streams, model, body, submission)
        except BaseException:  # also where the client has left
            for stream in streams:
                stream.close()
            raise
    except QueueFullError:
        raise service.queue_full() from None
    except (GenerationError, TokenizationError) as error:
        raise _refusal(error, body, submission) from None
    return Generation(streams, prompts, service.seconds_between_reads)


def _is_small(body: SamplingRequest, submission: Submission) -> bool:
    """Whether all texts are begun at once. Nobody knows what a template does with its messages."""
    if any(isinstance(prompt, Conversation) for prompt in submission.prompts):
        return False
    of_a_text = _CHARACTERS_OF_A_TEXT + _CHARACTERS_OF_A_BIAS * len(body.logit_bias or ())
    of_a_text += sum(map(len, body.stop))
    num_texts = len(submission.prompts) * submission.num_choices
    num_characters = sum(map(len, submission.prompts)) * submission.num_choices
    return num_characters + num_texts * of_a_text <= _MAX_WITHOUT_THREAD


def _begin(
    streams: list[TextStream],
    model: ServedModel,
    body: SamplingRequest,
    submission: Submission,
) -> list[list[int]]:
    """Tokenize, and hand everything to the engine; may run in any thread.

    Args:
        streams: Where the texts are put as they are begun.
        model: Writes them.
        body: How tokens are chosen.
        submission: What is written.

    Returns:
        The ids of the prompts.
    """
    params = _sampling_params(model, body, submission.logprobs)
    prompts = []
    for prompt in submission.prompts:
        if isinstance(prompt, Conversation):
            ids = prompt.encode()
        else:
            ids = model.codec.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if len(ids) + min(submission.max_tokens, 1) > model.max_model_len:
            what = f"the prompt has {len(ids)} tokens"
            raise model.too_long(what, submission.param, submission.max_tokens)
        prompts.append(ids)
        for number in range(submission.num_choices):
            stream = model.generator.stream_details(
                prompt if submission.echo and isinstance(prompt, str) else ids,
                max_new_tokens=submission.max_tokens,
                stop=body.stop,
                seed=nth_seed(body.seed, number),
                echo=submission.echo,
                sampling_params=params,
                prompt_logprobs=submission.logprobs if submission.echo else None,
            )
            streams.append(stream)
    return prompts


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
    """An error of the engine's, in the request's words, with the field that it is about."""
    named = str(error).partition(" ")[0]
    field = _FIELDS.get(named, named)
    return ApiError(
        400,
        str(error).replace(named, field, 1),
        param=field if field in type(body).model_fields else submission.param,
    )
