"""`GET /openapi.json`: what there is, made of the same classes that check requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gpt_neox_japanese.server.api import responses, schema

__all__ = ["describe"]

_REF = "#/components/schemas/{model}"
_JSON = "application/json"
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_HTML = {"text/html": {"schema": {"type": "string"}}}
_EVENTS: dict[str, Any] = {"text/event-stream": {"schema": {}}}  # some read it as one event's

# Path → what it does, what it takes, what it gives, and whether also as a stream.
_POST: dict[str, tuple[str, type[BaseModel], type[BaseModel], bool]] = {
    "/v1/completions": (
        "Continue text",
        schema.CompletionRequest,
        responses.Completion,
        True,
    ),
    "/v1/chat/completions": (
        "Write the next message of a conversation",
        schema.ChatCompletionRequest,
        responses.ChatCompletion,
        True,
    ),
    "/tokenize": ("Text to ids", schema.TokenizeRequest, responses.Tokens, False),
    "/detokenize": ("Ids to text", schema.DetokenizeRequest, responses.Text, False),
}


def describe(*, has_key: bool, num_ids: int, has_chat: bool) -> dict[str, Any]:
    """Describe all routes.

    Args:
        has_key: Whether a key is asked for.
        num_ids: Ids that there are.
        has_chat: Whether the model has a chat template.

    Returns:
        An OpenAPI document.
    """
    error = {"default": _answer("What is wrong", responses.ErrorResponse)}
    paths: dict[str, Any] = {
        path: {
            "post": {
                "summary": summary,
                "requestBody": {"required": True, "content": {_JSON: {"schema": _ref(takes)}}},
                "responses": {
                    "200": {
                        "description": "Done",
                        "content": {
                            _JSON: {"schema": _ref(gives)},
                            **(_EVENTS if streams else {}),
                        },
                    },
                    **error,
                },
            }
        }
        for path, (summary, takes, gives, streams) in _POST.items()
        if has_chat or "chat" not in path
    }
    paths |= {
        "/v1/models": _get("The model", {"200": _answer("One", responses.ModelList), **error}),
        "/v1/models/{model}": _get(
            "The model",
            {"200": _answer("It", responses.ModelInfo), **error},
            parameters=[
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ],
        ),
        "/health": _get(
            "Whether requests are taken",
            {
                "200": _answer("They are", responses.Health),
                "503": _answer("They are not", responses.Health),
                **error,
            },
            security=[],
        ),
        "/metrics": _get(
            "Numbers for Prometheus", {"200": {"description": "Them", "content": _TEXT}, **error}
        ),
        "/": _get(
            "The page", {"200": {"description": "It", "content": _HTML}, **error}, security=[]
        ),
    }
    _, schemas = models_json_schema(
        [(model, "validation") for model in _models()], ref_template=_REF
    )
    components: dict[str, Any] = {"schemas": schemas["$defs"]}
    _limit_ids(components, num_ids)
    if has_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "gpt-neox-japanese", "version": "1"},
        "paths": paths,
        "components": components,
        **({"security": [{"key": []}]} if has_key else {}),
    }


def _limit_ids(components: dict[str, Any], num_ids: int) -> None:
    """Say which ids there are."""
    schemas = components["schemas"]
    kinds = schemas["CompletionRequest"]["properties"]["prompt"]["anyOf"]
    ids = [kinds[2], kinds[3]["items"], schemas["DetokenizeRequest"]["properties"]["tokens"]]
    for each in ids:
        each["items"] = {"type": "integer", "minimum": 0, "maximum": num_ids - 1}


def _models() -> list[type[BaseModel]]:
    named = [model for _, takes, gives, _ in _POST.values() for model in (takes, gives)]
    return [
        *named,
        responses.ModelList,
        responses.ModelInfo,
        responses.Health,
        responses.ErrorResponse,
    ]


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _answer(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {_JSON: {"schema": _ref(model)}}}


def _get(summary: str, answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"get": {"summary": summary, "responses": answers, **more}}
