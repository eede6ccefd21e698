"""From texts that are being written to an answer: at once when all is there, or as it comes."""

from __future__ import annotations

import asyncio
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gpt_neox_japanese.errors import GenerationError
from gpt_neox_japanese.inference.outputs import OutputToken, TextChunk
from gpt_neox_japanese.server.api.schema import SamplingRequest
from gpt_neox_japanese.server.api.submission import Submission, submit
from gpt_neox_japanese.server.error_responses import ApiError, JsonResponse, log_failure, to_json
from gpt_neox_japanese.server.generation import Generation
from gpt_neox_japanese.server.service import Service
from gpt_neox_japanese.server.streaming import ClientGoneError, EventStream, unless_client_leaves

__all__ = ["AnswerFormat", "answer", "written_tokens"]


class AnswerFormat(ABC):
    """How the texts of one request are told.

    Attributes:
        id_prefix: What the answer's id begins with.
        whole: What a whole answer is called.
        chunk: What a part of a stream is called.
    """

    id_prefix: str
    whole: str
    chunk: str

    @abstractmethod
    def first_parts(self, generation: Generation) -> list[dict[str, Any]]:
        """What a stream begins with.

        Args:
            generation: The texts.

        Returns:
            Choices of the first chunks.
        """

    @abstractmethod
    def part(self, index: int, chunk: TextChunk, generation: Generation) -> dict[str, Any] | None:
        """What one more chunk adds to a choice.

        Args:
            index: Of the choice.
            chunk: Its text and tokens.
            generation: The texts.

        Returns:
            The choice of one event of a stream; None if it would say nothing.
        """

    @abstractmethod
    def choices(self, parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Put together what was told in parts.

        Args:
            parts: For each text, its parts in order.

        Returns:
            The choices of the whole answer.
        """


async def answer(
    service: Service,
    request: Request,
    body: SamplingRequest,
    submission: Submission,
    form: AnswerFormat,
) -> Response:
    """Write what a request asks for.

    Args:
        service: Whose model writes.
        request: Whose client may leave.
        body: The request's fields.
        submission: What is to be written.
        form: How it is told.

    Returns:
        The answer; a stream goes on writing while it is sent.

    Raises:
        ApiError: The request cannot be taken.
    """
    _check_together(body, submission)
    with ExitStack() as stack:
        stack.enter_context(service.admit(len(submission.prompts) * submission.num_choices))
        try:
            generation = await unless_client_leaves(
                submit(service, body, submission), request.receive
            )
            stack.enter_context(service.writing(generation))
            seconds = service.settings.request_timeout
            late = ApiError(504, f"the request took more than {seconds:g} s", code="timeout")
            timer = asyncio.get_running_loop().call_later(seconds, generation.abort, late)
            stack.callback(timer.cancel)
            head = _Head(form, service.model.name)
            if body.stream:
                return EventStream(
                    _events(body, form, generation, head, request.state.request_id),
                    queue_position=lambda: generation.queue_position,
                    keep_alive_interval=service.settings.keep_alive_interval,
                    write_timeout=service.settings.write_timeout,
                    on_end=stack.pop_all().close,
                )
            parts = await unless_client_leaves(_collect(form, generation), request.receive)
        except ClientGoneError:
            return Response(status_code=499)
        except GenerationError as error:  # a step failed: all that the request says was checked
            raise ApiError(500, str(error)) from None
    whole = {**head.of(form.whole), "choices": form.choices(parts), "usage": _usage(generation)}
    return JsonResponse(whole)


def _check_together(body: SamplingRequest, submission: Submission) -> None:
    """Refuse fields that contradict each other."""
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options are for stream: true", param="stream_options")
    if (body.min_tokens or 0) > submission.max_tokens:
        raise ApiError(
            400,
            f"min_tokens is {body.min_tokens}, above max_tokens, which is {submission.max_tokens}",
            param="min_tokens",
        )


class _Head:
    """What every object of one answer begins with."""

    def __init__(self, form: AnswerFormat, model: str) -> None:
        self._fields = {"created": int(time.time()), "model": model}
        self._id = f"{form.id_prefix}-{uuid.uuid4().hex}"

    def of(self, name: str) -> dict[str, Any]:
        return {"id": self._id, "object": name, **self._fields}


async def _collect(form: AnswerFormat, generation: Generation) -> list[list[dict[str, Any]]]:
    parts: list[list[dict[str, Any]]] = [[] for _ in generation.streams]
    async for chunks in generation.chunks():
        for index, chunk in chunks:
            part = form.part(index, chunk, generation)
            if part is not None:
                parts[index].append(part)
    return parts


async def _events(
    body: SamplingRequest,
    form: AnswerFormat,
    generation: Generation,
    head: _Head,
    request_id: str,
) -> AsyncIterator[list[bytes]]:
    """The events of a stream, those that are there together; whatever fails is the last of them."""
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    # What all events have in common is written once: there are thousands of them a second.
    begin = to_json(head.of(form.chunk)).removesuffix(b"}") + b',"choices":['
    end = b'],"usage":null}' if include_usage else b"]}"
    try:
        yield [begin + to_json(part) + end for part in form.first_parts(generation)]
        async for chunks in generation.chunks():
            parts = (form.part(index, chunk, generation) for index, chunk in chunks)
            yield [begin + to_json(part) + end for part in parts if part is not None]
        if include_usage:
            yield [begin + b'],"usage":' + to_json(_usage(generation)) + b"}"]
    except ApiError as error:
        yield [to_json(error.body)]
    except GenerationError as error:
        yield [to_json(ApiError(500, str(error)).body)]
    except Exception as error:
        yield [to_json(log_failure(error, request_id).body)]


def _usage(generation: Generation) -> dict[str, Any]:
    prompt, written = generation.num_prompt_tokens, generation.num_written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": generation.num_cached_tokens},
    }


def written_tokens(chunk: TextChunk, generation: Generation, index: int) -> tuple[OutputToken, ...]:
    """The tokens of a chunk; the last one's with the stop id that ended the text.

    Args:
        chunk: Of a text.
        generation: Whose text.
        index: Which one.

    Returns:
        Tokens in order.
    """
    stop_token = generation.streams[index].stop_token if chunk.finish_reason else None
    return chunk.tokens if stop_token is None else (*chunk.tokens, stop_token)
