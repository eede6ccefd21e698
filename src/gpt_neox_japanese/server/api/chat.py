"""`POST /v1/chat/completions`, for models with a chat template."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gpt_neox_japanese.inference.outputs import TextChunk
from gpt_neox_japanese.server.api.answer import AnswerFormat, answer, written_tokens
from gpt_neox_japanese.server.api.logprobs import TokenNames, chat_logprobs
from gpt_neox_japanese.server.api.schema import ChatCompletionRequest, ChatMessage, read_body
from gpt_neox_japanese.server.api.submission import Conversation, Submission
from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.generation import Generation
from gpt_neox_japanese.server.service import ServedModel, Service
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate

__all__ = ["create_chat_completion"]


async def create_chat_completion(service: Service, request: Request) -> Response:
    """Write the next message of a conversation.

    Args:
        service: Whose model writes.
        request: With a `ChatCompletionRequest` as its body.

    Returns:
        A chat completion, or its events.

    Raises:
        ApiError: The request cannot be taken, or the model has no chat template.
    """
    model = service.model
    body = await read_body(request, ChatCompletionRequest)
    model.check_name(body.model)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    conversation = Conversation(_template_of(model), [_plain(each) for each in body.messages])
    limits = (body.max_completion_tokens, body.max_tokens, model.max_model_len)
    max_tokens = next(limit for limit in limits if limit is not None)
    submission = Submission(
        prompts=[conversation],
        num_choices=body.n or 1,
        max_tokens=max_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        param="messages",
    )
    return await answer(service, request, body, submission, _ChatFormat(body, model.names))


def _template_of(model: ServedModel) -> ChatTemplate:
    if model.chat_template is None:
        raise ApiError(
            400,
            "this model has no chat template: it continues text, and has not learned to answer."
            " Use POST /v1/completions, or start the server with --chat-template FILE",
            param="messages",
            code="no_chat_template",
        )
    return model.chat_template


def _plain(message: ChatMessage) -> dict[str, Any]:
    name = {} if message.name is None else {"name": message.name}
    return {"role": message.role, "content": message.content, **name}


class _ChatFormat(AnswerFormat):
    """OpenAI's chat completion."""

    id_prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(self, body: ChatCompletionRequest, names: TokenNames) -> None:
        self._body = body
        self._names = names

    def first_parts(self, generation: Generation) -> list[dict[str, Any]]:
        delta = {"role": "assistant", "content": ""}
        return [
            {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
            for index in range(len(generation.streams))
        ]

    def part(self, index: int, chunk: TextChunk, generation: Generation) -> dict[str, Any] | None:
        tokens = written_tokens(chunk, generation, index)
        wants_tokens = self._body.logprobs or self._body.return_token_ids
        if not (chunk.text or chunk.finish_reason or (tokens and wants_tokens)):
            return None
        part: dict[str, Any] = {
            "index": index,
            "delta": {"content": chunk.text} if chunk.text else {},
            "logprobs": None,
            "finish_reason": chunk.finish_reason,
        }
        if self._body.logprobs:
            part["logprobs"] = chat_logprobs(
                tokens,
                self._names,
                self._body.top_logprobs or 0,
                as_ids=bool(self._body.return_tokens_as_token_ids),
            )
        if self._body.return_token_ids:
            part["token_ids"] = [token.id for token in tokens]
        return part

    def choices(self, parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        return [_join(of_one) for of_one in parts]


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One choice out of its parts."""
    text = "".join(part["delta"].get("content", "") for part in parts)
    whole: dict[str, Any] = {
        "index": parts[0]["index"],
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": parts[-1]["finish_reason"],
    }
    if parts[0]["logprobs"] is not None:
        content = [token for part in parts for token in part["logprobs"]["content"]]
        whole["logprobs"] = {"content": content, "refusal": None}
    if "token_ids" in parts[0]:
        whole["token_ids"] = [token_id for part in parts for token_id in part["token_ids"]]
    return whole
