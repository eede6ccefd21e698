"""What answers hold; the description in /openapi.json is made of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = [
    "ChatCompletion",
    "Completion",
    "ErrorResponse",
    "Health",
    "ModelInfo",
    "ModelList",
    "Text",
    "Tokens",
]

FinishReason = Literal["stop", "length"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PromptTokensDetails(_Answer):
    """How many prompt tokens had been computed for an earlier request."""

    cached_tokens: int


class Usage(_Answer):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class Logprobs(_Answer):
    """Four lists of one length."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class Alternative(_Answer):
    """An id that might have been chosen."""

    id: int
    text: str
    bytes: list[int]
    logprob: float


class TokenDetails(_Answer):
    """A token and its place in the choice's text."""

    id: int
    text: str
    bytes: list[int]
    logprob: float | None
    start: int
    end: int
    top: list[Alternative]


class CompletionChoice(_Answer):
    """One continuation."""

    index: int
    text: str
    logprobs: Logprobs | None
    finish_reason: FinishReason | None
    prompt_token_ids: list[int] | None = None
    token_ids: list[int] | None = None
    token_details: list[TokenDetails] | None = None


class Completion(_Answer):
    """The answer of `POST /v1/completions`, and each event of its stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class ChatAlternative(_Answer):
    """An id that might have been chosen."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(ChatAlternative):
    """A token of a message."""

    top_logprobs: list[ChatAlternative]


class ChatLogprobs(_Answer):
    """The tokens of a message."""

    content: list[ChatToken]
    refusal: None


class AssistantMessage(_Answer):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Answer):
    """One message."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason
    token_ids: list[int] | None = None


class ChatCompletion(_Answer):
    """The answer of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Defaults(_Answer):
    """Sampling where a request says nothing."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float


class ModelInfo(_Answer):
    """A model. Ids mean the same to all models with one `vocabulary`, which is a fingerprint."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int
    vocabulary: str
    defaults: Defaults


class ModelList(_Answer):
    """The answer of `GET /v1/models`."""

    object: Literal["list"]
    data: list[ModelInfo]


class Piece(_Answer):
    """A token and the characters that it stands for."""

    id: int
    text: str
    bytes: list[int]
    start: int
    end: int
    normalized: bool


class Tokens(_Answer):
    """The answer of `POST /tokenize`."""

    tokens: list[int]
    count: int
    max_model_len: int
    pieces: list[Piece]
    normalized: str


class Text(_Answer):
    """The answer of `POST /detokenize`."""

    prompt: str
    content: str


class Health(_Answer):
    """Whether the server takes requests."""

    status: Literal["ok", "loading", "stopping"]


class Error(_Answer):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(_Answer):
    """OpenAI's error object."""

    error: Error
