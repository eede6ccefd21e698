"""What Prometheus is told. No label comes from a client."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from gpt_neox_japanese.server.generation import Generation

__all__ = ["Metrics", "route_of"]

_ROUTES = (
    "/",
    "/detokenize",
    "/health",
    "/metrics",
    "/openapi.json",
    "/tokenize",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
)
_FOLDERS = ("/page/", "/v1/models/")
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def route_of(path: str) -> str:
    """Name the route of a path, in words of our own.

    Args:
        path: What a client asked for.

    Returns:
        A path that exists, or "other".
    """
    if path in _ROUTES:
        return path
    return next((f.rstrip("/") for f in _FOLDERS if path.startswith(f)), "other")


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "neox_ja_requests",
            "Answers by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "neox_ja_prompt_tokens", "Tokens of prompts.", registry=registry
        )
        self._cached_prompt_tokens = Counter(
            "neox_ja_cached_prompt_tokens", "Those that the prefix cache had.", registry=registry
        )
        self._generation_tokens = Counter(
            "neox_ja_generation_tokens", "Tokens written.", registry=registry
        )
        self._time_to_first_token = Histogram(
            "neox_ja_time_to_first_token_seconds",
            "From where a request's texts are in the queue to its first token.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._request_duration = Histogram(
            "neox_ja_request_duration_seconds",
            "From where a request's texts are in the queue to the end of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._running = Gauge("neox_ja_running", "Texts being written.", registry=registry)
        self._waiting = Gauge("neox_ja_waiting", "Texts in the queue.", registry=registry)

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Ask for the state of the queue whenever metrics are read.

        Args:
            running: How many texts are being written.
            waiting: How many wait for a slot.
        """
        self._running.set_function(running)
        self._waiting.set_function(waiting)

    def count_answer(self, route: str, status: int) -> None:
        """Count an answer.

        Args:
            route: As `route_of` names it.
            status: Of HTTP.
        """
        self._requests.labels(route, str(status)).inc()

    def count(self, generation: Generation) -> None:
        """Count what a request read and wrote.

        Args:
            generation: It has ended.
        """
        self._prompt_tokens.inc(generation.num_prompt_tokens)
        self._cached_prompt_tokens.inc(generation.num_cached_tokens)
        self._generation_tokens.inc(generation.num_written)
        if generation.seconds_to_first_token is not None:
            self._time_to_first_token.observe(generation.seconds_to_first_token)
        self._request_duration.observe(generation.seconds)

    def render(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self._registry)
