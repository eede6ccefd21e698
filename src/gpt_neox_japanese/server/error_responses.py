"""What a client is told when something cannot be done: OpenAI's error object."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import pydantic_core
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["ApiError", "JsonResponse", "handle_http_exception", "log_failure", "to_json"]

_log = logging.getLogger("gpt_neox_japanese.server")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: Of HTTP.
        message: What is wrong, and what to do.
        param: The field that is to blame.
        code: For programs.
        headers: To be sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, "invalid_request_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def response(self) -> Response:
        """The answer that tells it."""
        return JsonResponse(self.body, self.status, self.headers)


def log_failure(error: Exception, request_id: str) -> ApiError:
    """Log where a request failed, but not the message, which may hold a prompt.

    Args:
        error: A fault of ours.
        request_id: Which request.

    Returns:
        What its client is told.
    """
    trace = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s in a request, id=%s\n%s", type(error).__name__, request_id, trace)
    return ApiError(500, "the server failed at this request; its log says where")


def to_json(value: Any) -> bytes:
    """Write JSON, in UTF-8.

    Args:
        value: Dictionaries, lists, strings and numbers; one that is not finite becomes null.

    Returns:
        JSON without a line break in it.
    """
    try:
        return pydantic_core.to_json(value, inf_nan_mode="null")  # many times faster than json's
    except pydantic_core.PydanticSerializationError:
        # Half a surrogate, which a header may bring in, becomes JSON's own \udc80.
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


class JsonResponse(Response):
    """A JSON body; neither NaN nor Infinity can be in it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body as bytes."""
        return to_json(content)


async def handle_http_exception(_request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    message = {
        404: "there is nothing at this path; GET /openapi.json lists what there is",
        405: "this path does not take this method; see the header Allow",
    }.get(error.status_code, HTTPStatus(error.status_code).phrase)
    return ApiError(error.status_code, message, headers=error.headers).response
