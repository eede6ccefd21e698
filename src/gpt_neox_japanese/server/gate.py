"""What every request passes before a route sees it, and every answer on its way out.

Who may ask (host, origin, key), how large a body may be, what headers an answer has, what is
logged. A server on 127.0.0.1 is within reach of every web page that its user opens: the host
allow-list stops pages whose own name leads here (DNS rebinding), the check of origins stops POSTs
that a page sends without reading the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import re
import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gpt_neox_japanese.server.error_responses import ApiError, log_failure
from gpt_neox_japanese.server.metrics import Metrics, route_of
from gpt_neox_japanese.server.settings import ServerSettings

__all__ = ["STRICT_HEADERS", "Gate"]

_log = logging.getLogger("gpt_neox_japanese.server")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_METHODS = (*_SAFE_METHODS, "POST", "PUT", "PATCH", "DELETE")
_SECONDS_BETWEEN_PARTS = 30.0  # of a body
# A server need not serve parts of files, and Starlette's errors about them are no JSON.
_IGNORED_HEADERS = (b"range", b"if-range")

STRICT_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " object-src 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer has."""


class Gate:
    """Middleware around all routes.

    Args:
        app: What answers.
        settings: Who may ask, and how much.
        metrics: Count answers.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        allowed = map(_host_name, settings.allowed_hosts)
        self._hosts = frozenset({"localhost", settings.host.lower(), *allowed})
        self._key = _digest(settings.api_key) if settings.api_key is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [each for each in scope["headers"] if each[0] not in _IGNORED_HEADERS]
        headers = Headers(scope=scope)
        answer = _Answer(send, _request_id(headers), is_page=_is_page(scope["path"]))
        scope.setdefault("state", {})["request_id"] = answer.request_id
        begun = time.monotonic()
        body = _Body(receive, self._settings)
        try:
            try:
                self._check(scope, headers)
                await self._app(scope, body.receive, answer.send)
            except ApiError as error:
                await answer.refuse(error, scope)
            except asyncio.CancelledError:  # by uvicorn, when a stop cannot wait for it any longer
                stopped = ApiError(503, "the server was stopped; ask again", code="stopping")
                await answer.refuse(stopped, scope)
            except Exception as error:
                await answer.refuse(log_failure(error, answer.request_id), scope)
        finally:
            self._tell(scope, answer, time.monotonic() - begun)

    def _tell(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = route_of(scope["path"])
        status = answer.status or 499  # as nginx says it: the client was gone
        self._metrics.count_answer(route, status)
        method = scope["method"] if scope["method"] in _METHODS else "?"
        _log.info("%s %s %d %.3f s id=%s", method, route, status, seconds, answer.request_id)

    # ---- Who may ask -----------------------------------------------------------------------------

    def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host")
        if host is not None and not self._knows(host):
            raise ApiError(
                403,
                "the server is not known by this host name; start it with --allow-host NAME",
                code="host_not_allowed",
            )
        if scope["method"] not in _SAFE_METHODS and not self._is_own(headers, host):
            raise ApiError(
                403,
                "another web page may not use this server; start it with --allow-origin ORIGIN",
                code="origin_not_allowed",
            )
        if self._key is not None and not _is_open(scope["path"]):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(_digest(given.strip()), self._key)
            if scheme.lower() != "bearer" or not right:
                raise ApiError(
                    401,
                    "the API key is missing or wrong; send the header Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        length = headers.get("content-length", "")
        if re.fullmatch("[0-9]{1,18}", length) and int(length) > self._settings.max_body_bytes:
            raise _too_large(self._settings.max_body_bytes)

    def _knows(self, host: str) -> bool:
        """Whether the server may be called so. An address cannot be rebound, a name can."""
        if "*" in self._hosts:
            return True
        name = _host_name(host)
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_own(self, headers: Headers, host: str | None) -> bool:
        """Whether no browser sends this for a page of another origin."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        allowed = self._settings.allowed_origins
        if "*" in allowed or origin in allowed:
            return True
        try:
            return bool(host) and urlsplit(origin).netloc.lower() == str(host).lower()
        except ValueError:
            return False


class _Answer:
    """Passes an answer on, with our headers, and knows how far it came."""

    def __init__(self, send: Send, request_id: str, *, is_page: bool) -> None:
        self._send = send
        self._is_page = is_page
        self.request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in STRICT_HEADERS.items():
                headers[name] = value
            headers["X-Request-Id"] = self.request_id
            headers.setdefault("Cache-Control", "no-cache" if self._is_page else "no-store")
        await self._send(message)

    async def refuse(self, error: ApiError, scope: Scope) -> None:
        """Answer with an error, unless an answer has begun; then it just breaks off."""
        if self.status is None:
            await error.response(scope, _nothing, self.send)


class _Body:
    """A request's body, of which no more is taken in than is allowed, nor for ever waited for."""

    def __init__(self, receive: Receive, settings: ServerSettings) -> None:
        self._receive = receive
        self._max_bytes = settings.max_body_bytes
        self._deadline = asyncio.get_running_loop().time() + settings.request_timeout
        self._num_bytes = 0
        self._is_complete = False

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            next_part = asyncio.get_running_loop().time() + _SECONDS_BETWEEN_PARTS
            async with asyncio.timeout_at(min(next_part, self._deadline)):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(
                408, "the rest of the body did not come", headers={"Connection": "close"}
            ) from None
        self._num_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._num_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        return message


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {max_bytes} bytes; send less at once, or start the server with"
        " a larger --max-body-size",
        code="body_too_large",
    )


def _digest(text: str) -> bytes:
    """Of one length, so that comparing tells nothing of the key's."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _host_name(host: str) -> str:
    """`host` without its port."""
    name = host.strip().lower()
    if name.startswith("["):
        address, _, rest = name[1:].partition("]")
        return address if not rest or rest.startswith(":") else name
    return name.partition(":")[0].removesuffix(".")


def _is_page(path: str) -> bool:
    return path == "/" or path.startswith("/page/")


def _is_open(path: str) -> bool:
    """Whether a path is there without a key."""
    return path == "/health" or _is_page(path)
