"""What requests may hold: OpenAI's names, and vLLM's for what OpenAI has not.

Types are strict: "16" is no number. Fields that are not named here are ignored, null stands for a
field that was left out.

The event loop checks them, and a body may be a list of a million: its length is looked at before
what it holds, and the first that is wrong ends the check.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from gpt_neox_japanese.server.error_responses import ApiError

__all__ = [
    "MAX_CHOICES",
    "ChatCompletionRequest",
    "ChatMessage",
    "CompletionRequest",
    "DetokenizeRequest",
    "SamplingRequest",
    "StreamOptions",
    "TokenizeRequest",
    "read_body",
]

MAX_CHOICES = 128
"""Continuations of one prompt at most; `n` and `best_of`."""

_MAX_PROMPTS = 8192  # more than any server takes at once
_MAX_LOGPROBS = 20
_MAX_STOPS = 16
_MAX_STOP_CHARACTERS = 256
_MAX_BIASES = 1024
_MAX_CHARACTERS = 100_000  # that /tokenize tells the pieces of: some megabytes

_Ids: TypeAlias = list[int]
_ID_LIST = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_LIST_OF_PROMPTS = {"type": "array", "minItems": 1, "maxItems": _MAX_PROMPTS}
_NOTHING: list[Any] = [None, "", []]  # as clients send for what they do not ask for
_STOP = {"type": "string", "minLength": 1, "maxLength": _MAX_STOP_CHARACTERS}


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(type(v) is kind for v in values)


def _integral(value: Any) -> Any:
    """5.0 is an integer in JSON, which knows numbers alone."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ids(values: list[Any]) -> list[Any]:
    return values if _are(int, values) else [_integral(value) for value in values]


def _check_number_of_prompts(value: Any) -> Any:
    if isinstance(value, list) and len(value) > _MAX_PROMPTS and isinstance(value[0], (str, list)):
        raise ApiError(
            400,
            f"the request holds {len(value)} prompts; send {_MAX_PROMPTS} at most",
            param="prompt",
            code="too_many_texts",
        )
    return value


def _check_prompt(value: Any) -> str | list[str] | _Ids | list[_Ids]:
    if (isinstance(value, str) and value) or (_are(str, value) and all(value)):
        return value  # type: ignore[no-any-return]
    if _are(list, value):
        many = [_ids(each) for each in value]
        if all(_are(int, ids) for ids in many):
            return many
    elif isinstance(value, list) and _are(int, ids := _ids(value)):
        return ids
    raise ValueError(
        "must be a string, a list of strings, a list of token ids, or a list of such lists, and"
        " none of them empty"
    )


def _check_stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else ([] if value is None else value)
    fits = isinstance(stops, list) and len(stops) <= _MAX_STOPS
    if not fits or not all(
        isinstance(stop, str) and 0 < len(stop) <= _MAX_STOP_CHARACTERS for stop in stops
    ):
        raise ValueError(
            f"must be a string or a list of at most {_MAX_STOPS} strings, each of 1 to"
            f" {_MAX_STOP_CHARACTERS} characters"
        )
    return tuple(stops)


def _is_text_part(part: Any) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _text_of(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(map(_is_text_part, content)):
        return "".join(part["text"] for part in content)
    raise ValueError(
        'must be a string, or a list of parts {"type": "text", "text": "…"}; parts of another type'
        " are not supported"
    )


def _check_number_of_biases(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > _MAX_BIASES:
        raise ValueError(f"has {len(value)} ids; give {_MAX_BIASES} at most")
    return value


def _check_left_out(value: Any) -> None:
    if value not in _NOTHING:
        raise ValueError("is not supported; leave it out")


_Prompt = Annotated[
    str | list[str] | _Ids | list[_Ids],
    PlainValidator(_check_prompt),
    BeforeValidator(_check_number_of_prompts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {**_LIST_OF_PROMPTS, "items": {"type": "string", "minLength": 1}},
                _ID_LIST,
                {**_LIST_OF_PROMPTS, "items": _ID_LIST},
            ]
        }
    ),
]
_Stop = Annotated[
    tuple[str, ...],
    PlainValidator(_check_stop),
    WithJsonSchema(
        {
            "anyOf": [
                _STOP,
                {"type": "array", "maxItems": _MAX_STOPS, "items": _STOP},
                {"type": "null"},
            ],
            "default": None,
        }
    ),
]
_Content = Annotated[
    str,
    PlainValidator(_text_of),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                        "required": ["type", "text"],
                    },
                },
                {"type": "null"},
            ],
            "default": None,
        }
    ),
]
_Unsupported = Annotated[
    None, PlainValidator(_check_left_out), WithJsonSchema({"enum": _NOTHING, "default": None})
]
_Bias = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern="^[0-9]{1,9}$")],
        Annotated[float, Field(ge=-100, le=100)],
    ],
    Field(max_length=_MAX_BIASES),
    BeforeValidator(_check_number_of_biases),
]


_MAX = 2**31
_Integral = BeforeValidator(_integral)
_Count = Annotated[int, Field(ge=0, le=_MAX), _Integral]
_NumChoices = Annotated[int, Field(ge=1, le=MAX_CHOICES), _Integral]
_NumLogprobs = Annotated[int, Field(ge=0, le=_MAX_LOGPROBS), _Integral]
_Seed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1), _Integral]
_TopK = Annotated[int, Field(ge=-1, le=_MAX), _Integral]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class StreamOptions(_Body):
    """What a stream holds beside its text."""

    include_usage: bool | None = None


class SamplingRequest(_Body):
    """What both ways to write have in common.

    What is left out is as the model's generation_config.json says.
    """

    model: str | None = Field(None, description="As GET /v1/models names it.")
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: _TopK | None = Field(None, description="0 and -1 are all.")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: _Bias | None = Field(None, description="Token id → what is added to its score.")
    min_tokens: _Count | None = None
    seed: _Seed | None = None
    n: _NumChoices | None = None
    stop: _Stop = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    user: str | None = Field(None, description="Ignored.")


class CompletionRequest(SamplingRequest):
    """`POST /v1/completions`."""

    prompt: _Prompt
    max_tokens: _Count | None = Field(None, description="16 if left out.")
    best_of: _NumChoices | None = None
    echo: bool | None = None
    logprobs: _NumLogprobs | None = None
    suffix: _Unsupported = Field(None, description="Not supported.")
    token_details: bool | None = Field(None, description="Id, bytes and place of every token.")


class ChatMessage(_Body):
    """What one side says."""

    role: str = Field(min_length=1, max_length=64)
    content: _Content = Field("", description="Of several parts, their text together.")
    name: str | None = None


class ResponseFormat(_Body):
    """In which form to answer."""

    type: Literal["text"]


class ChatCompletionRequest(SamplingRequest):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=1024)
    max_tokens: _Count | None = Field(
        None, description="The older name of max_completion_tokens, which goes first."
    )
    max_completion_tokens: _Count | None = None
    logprobs: bool | None = None
    top_logprobs: _NumLogprobs | None = None
    response_format: ResponseFormat | None = None
    tools: _Unsupported = Field(None, description="Not supported.")
    functions: _Unsupported = Field(None, description="Not supported: the older name of tools.")


class TokenizeRequest(_Body):
    """`POST /tokenize`; the text in one of two fields, as vLLM or llama.cpp names it."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "string"}}}
                for name in ("prompt", "content")
            ]
        }
    )

    prompt: str | None = Field(None, max_length=_MAX_CHARACTERS)
    content: str | None = Field(None, max_length=_MAX_CHARACTERS)
    model: str | None = None


class DetokenizeRequest(_Body):
    """`POST /detokenize`."""

    tokens: Annotated[list[_Count], FailFast()]
    model: str | None = None


_T = TypeVar("_T", bound=_Body)


async def read_body(request: Request, model: type[_T]) -> _T:
    """Read and check a request's body.

    Args:
        request: Whose body.
        model: What it must be.

    Returns:
        The checked body.

    Raises:
        ApiError: It is no JSON, or not what it must be.
    """
    media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip()
    if media_type.lower() != "application/json":
        raise ApiError(415, "the body must be JSON; send the header Content-Type: application/json")
    try:
        data = await request.body()
    except ClientDisconnect:
        raise ApiError(400, "the client left before its request was complete") from None
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"][:3]))
        message = first["msg"].removeprefix("Value error, ")
        raise ApiError(400, f"{place}: {message}", param=place or None) from None
