"""What all routes share: the model, how much is being written, and whether the server is open."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from gpt_neox_japanese.inference.generator import TextGenerator
from gpt_neox_japanese.server.api.logprobs import TokenNames
from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.generation import Generation
from gpt_neox_japanese.server.metrics import Metrics
from gpt_neox_japanese.server.settings import ServerSettings
from gpt_neox_japanese.tokenizer.chat_template import ChatTemplate

__all__ = ["ServedModel", "Service"]

_T = TypeVar("_T")

_MAX_SECONDS_TO_RETRY = 60
_MAX_THREADS = 2  # that tokenize
# Every read takes time from the engine, which has the same cores. A text that is written at reading
# speed is still sent token by token; of a faster one, some tokens at a time.
_MAX_READS_A_SECOND = 400  # of all texts
_MIN_SECONDS_BETWEEN_READS = 0.02


class ServedModel:
    """A model that is ready, and what is computed once for all requests.

    Args:
        name: What clients call it.
        generator: Writes.
        chat_template: Makes a prompt of messages; None if there is none.

    Attributes:
        names: What its ids are called.
        max_model_len: Tokens of prompt and continuation.
        slots: Texts that are written at once.
        max_prompt_characters: More are refused before they are tokenized.
    """

    def __init__(
        self, name: str, generator: TextGenerator, chat_template: ChatTemplate | None = None
    ) -> None:
        self.name = name
        self.created = int(time.time())
        self.generator = generator
        self.codec = generator.codec
        self.names = TokenNames(generator.codec)
        self.chat_template = chat_template
        self.max_model_len: int = generator.engine.network.capacity
        self.slots: int = generator.engine.network.slots
        # No text that fits the context is longer, but for runs of what is folded into one token.
        longest = max(len(self.names.text(token_id)) for token_id in range(len(self.codec)))
        self.max_prompt_characters = self.max_model_len * max(32, longest)
        self._threads = asyncio.Semaphore(_MAX_THREADS)

    async def in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Tokenize in a thread, when few do.

        Cancelling this does not end the thread: it is waited for before anything else is done.

        Args:
            work: What the thread calls.
            *arguments: Its arguments.

        Returns:
            What `work` returns.
        """
        async with self._threads:
            thread = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
            try:
                await asyncio.wait([thread])
            except asyncio.CancelledError:
                await asyncio.wait([thread])
                thread.exception()  # nobody else asks for it
                raise
            return thread.result()

    def too_long(self, what: str, param: str, max_tokens: int) -> ApiError:
        """The error for a prompt that does not fit the context.

        Args:
            what: How long it is.
            param: The field it was in.
            max_tokens: How many tokens are to follow at most.

        Returns:
            OpenAI's error of that name.
        """
        writes = max_tokens > 0
        return ApiError(
            400,
            f"{what}, the model reads at most {self.max_model_len - writes} tokens"
            f"{' before it writes' * writes}; shorten the prompt",
            param=param,
            code="context_length_exceeded",
        )

    @property
    def details(self) -> dict[str, Any]:
        """What `GET /v1/models` says of it."""
        params = self.generator.sampling_params
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "gpt-neox-japanese",
            "max_model_len": self.max_model_len,
            "vocabulary": self.codec.fingerprint,
            "defaults": {name: getattr(params, name) for name in names},
        }

    def check_name(self, name: str | None) -> None:
        """Refuse a request for another model.

        Args:
            name: What the request says; None for whatever there is.

        Raises:
            ApiError: There is no such model.
        """
        if name is not None and name != self.name:
            raise ApiError(
                404,
                f"there is no model {name[:100]!r} here; this server has {self.name!r}",
                param="model",
                code="model_not_found",
            )


class Service:
    """The state of one server. Only its event loop touches it.

    Args:
        settings: What it bears.

    Attributes:
        status: "loading", then "ok", in the end "stopping".
        settings: As above.
        metrics: What Prometheus is told.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.status: Literal["loading", "ok", "stopping"] = "loading"
        self._model: ServedModel | None = None
        self._generations: set[Generation] = set()
        self._num_texts = 0
        self._mean_seconds_of_a_text = 1.0  # while it has a slot

    def open(self, model: ServedModel) -> None:
        """Take requests from now on.

        Args:
            model: What answers them.
        """
        self._model = model
        if self.status == "loading":
            self.status = "ok"
        engine = model.generator.engine
        self.metrics.watch(lambda: engine.num_running, lambda: engine.num_waiting)

    @property
    def model(self) -> ServedModel:
        """The model.

        Raises:
            ApiError: It is being loaded, or the server is being stopped.
        """
        if self.status == "stopping" or self._model is None:
            raise ApiError(
                503,
                f"the server is {self.status}; try again later",
                code=self.status,
                headers={"Retry-After": "5"},
            )
        return self._model

    @contextmanager
    def admit(self, num_texts: int) -> Iterator[None]:
        """Count texts as being written or waiting.

        Args:
            num_texts: How many a request asks for.

        Raises:
            ApiError: So many are never taken, or not now.
        """
        room = self.model.slots + self.settings.max_queue
        if num_texts > room:
            raise ApiError(
                400,
                f"the request asks for {num_texts} texts (prompts × n), the server takes {room} at"
                " once; ask for fewer",
                code="too_many_texts",
            )
        if self._num_texts + num_texts > room:
            raise self.queue_full()
        self._num_texts += num_texts
        try:
            yield
        finally:
            self._num_texts -= num_texts

    def queue_full(self) -> ApiError:
        """The error for a request that cannot be taken now, with the time when it may be."""
        rounds = self._num_texts / self.model.slots
        seconds = math.ceil(rounds * self._mean_seconds_of_a_text)
        return ApiError(
            429,
            f"{self._num_texts} texts are being written or waiting already; try again later",
            code="queue_full",
            headers={"Retry-After": str(max(1, min(seconds, _MAX_SECONDS_TO_RETRY)))},
        )

    @contextmanager
    def writing(self, generation: Generation) -> Iterator[None]:
        """Remember a generation, so that a stop of the server ends it, and count it in the end.

        Args:
            generation: It is closed at the end of the block.

        Raises:
            ApiError: The server was stopped while its prompts were tokenized.
        """
        if self.status == "stopping":
            generation.close()
            raise _stopped()
        self._generations.add(generation)
        try:
            yield
        finally:
            self._generations.discard(generation)
            generation.close()
            self.metrics.count(generation)
            for seconds in generation.seconds_of_texts:
                self._mean_seconds_of_a_text += 0.1 * (seconds - self._mean_seconds_of_a_text)

    def seconds_between_reads(self) -> float:
        """How long a request's texts grow before more of them is sent."""
        # Not `self.model`, which nobody gets who asks while the server stops: these texts go on.
        slots = self._model.slots if self._model is not None else 1
        num_read = min(len(self._generations), slots)
        return max(_MIN_SECONDS_BETWEEN_READS, num_read / _MAX_READS_A_SECOND)

    # ---- The end ---------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being tokenized or written."""
        return self._num_texts == 0

    def stop(self) -> None:
        """Take nothing more."""
        self.status = "stopping"

    def abort(self) -> None:
        """End what is still being written; whoever waits for it is told."""
        for generation in list(self._generations):
            generation.abort(_stopped())

    @property
    def is_open(self) -> bool:
        """Whether a model is loaded."""
        return self._model is not None

    def close(self) -> None:
        """End the engine, and what renders chat templates."""
        if self._model is not None:
            if self._model.chat_template is not None:
                self._model.chat_template.close()
            self._model.generator.close()


def _stopped() -> ApiError:
    return ApiError(503, "the server was stopped; ask again", code="stopping")
