"""The routes, and what is around them."""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from gpt_neox_japanese.server.api.chat import create_chat_completion
from gpt_neox_japanese.server.api.completions import create_completion
from gpt_neox_japanese.server.api.openapi import describe
from gpt_neox_japanese.server.api.tokens import detokenize, tokenize
from gpt_neox_japanese.server.error_responses import JsonResponse, handle_http_exception
from gpt_neox_japanese.server.gate import Gate
from gpt_neox_japanese.server.service import Service

__all__ = ["make_app"]

_PAGE = Path(__file__).parent / "page"

_Endpoint = Callable[[Service, Request], Awaitable[Response]]


def make_app(service: Service) -> Starlette:
    """The server as an ASGI application.

    Args:
        service: What its routes share.

    Returns:
        The application; it answers 503 until the service has a model.
    """
    settings = service.settings
    gate = Middleware(Gate, settings=settings, metrics=service.metrics)
    cors = Middleware(
        CORSMiddleware,
        allow_origins=settings.allowed_origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        expose_headers=("Retry-After", "X-Request-Id"),
    )

    def route(method: str, path: str, endpoint: _Endpoint) -> Route:
        return Route(path, partial(endpoint, service), methods=[method])

    for suffix in (".js", ".mjs"):  # which Windows may call text/plain; no browser runs that
        mimetypes.add_type("text/javascript", suffix)
    app = Starlette(
        routes=[
            route("POST", "/v1/completions", create_completion),
            route("POST", "/v1/chat/completions", create_chat_completion),
            route("GET", "/v1/models", _list_models),
            route("GET", "/v1/models/{model:path}", _describe_model),
            route("POST", "/tokenize", tokenize),
            route("POST", "/detokenize", detokenize),
            route("GET", "/health", _tell_health),
            route("GET", "/metrics", _tell_metrics),
            route("GET", "/openapi.json", _describe_routes),
            Route("/", GZipMiddleware(_show_page), methods=["GET"]),
            Mount("/page", GZipMiddleware(StaticFiles(directory=_PAGE, check_dir=False))),
        ],
        middleware=[cors, gate] if settings.allowed_origins else [gate],
        exception_handlers={HTTPException: handle_http_exception},
    )
    app.router.redirect_slashes = False
    return app


async def _list_models(service: Service, _request: Request) -> Response:
    return JsonResponse({"object": "list", "data": [service.model.details]})


async def _describe_model(service: Service, request: Request) -> Response:
    service.model.check_name(request.path_params["model"])
    return JsonResponse(service.model.details)


async def _tell_health(service: Service, _request: Request) -> Response:
    status = 200 if service.status == "ok" else 503
    return JsonResponse({"status": service.status}, status)


async def _tell_metrics(service: Service, _request: Request) -> Response:
    return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


async def _describe_routes(service: Service, _request: Request) -> Response:
    model = service.model
    description = describe(
        has_key=service.settings.api_key is not None,
        num_ids=len(model.codec),
        has_chat=model.chat_template is not None,
    )
    return JsonResponse(description)


async def _show_page(scope: Scope, receive: Receive, send: Send) -> None:
    index = _PAGE / "index.html"
    if not index.is_file():
        raise HTTPException(404)
    await FileResponse(index)(scope, receive, send)
