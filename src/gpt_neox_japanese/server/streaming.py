"""Server-sent events, and clients that leave or stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["ClientGoneError", "EventStream", "unless_client_leaves"]

_T = TypeVar("_T")

_SECONDS_BETWEEN_LOOKS = 0.25  # at the place in the queue


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def unless_client_leaves(work: Coroutine[Any, Any, _T], receive: Receive) -> _T:
    """Do what a client waits for, and cancel it when it does not wait any longer.

    Args:
        work: What the client waits for.
        receive: Of its request, whose body has been read.

    Returns:
        What `work` returns.

    Raises:
        ClientGoneError: The connection was closed; `work` has ended.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGoneError
        return working.result()
    finally:
        await _end(working, leaving)


class EventStream(Response):
    """Sends events as they come, comments while nothing comes, and ends when nobody reads.

    Every event is sent as a whole: whatever happens, none is torn.

    Args:
        events: Lists of JSON objects, each sent as one event; its errors must be events.
        queue_position: The request's place in the queue, from 1; 0 once it is written.
        keep_alive_interval: Seconds of silence before a comment.
        write_timeout: Seconds that a client may leave what is sent unread.
        on_end: Called in the end, whatever happened.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[list[bytes]],
        *,
        queue_position: Callable[[], int],
        keep_alive_interval: float,
        write_timeout: float,
        on_end: Callable[[], object],
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._events = events
        self._queue_position = queue_position
        self._keep_alive_interval = keep_alive_interval
        self._write_timeout = write_timeout
        self._on_end = on_end
        self._last_sent = time.monotonic()
        self._sending = asyncio.Lock()
        self._is_complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        tasks: list[asyncio.Future[None]] = []
        start = {"status": self.status_code, "headers": self.raw_headers}
        try:
            await send({"type": "http.response.start", **start})
            work = (self._write_events(send), self._write_comments(send), _disconnect(receive))
            tasks += map(asyncio.ensure_future, work)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except TimeoutError:  # what was sent is not read: the rest would wait for ever
            transport = scope.get("state", {}).get("transport")
            if transport is not None:
                transport.abort()
        finally:
            try:
                await _end(*tasks)
            finally:
                self._on_end()

    async def _write_events(self, send: Send) -> None:
        async for events in self._events:
            data = b"".join(b"data: %b\n\n" % event for event in events)
            if data:
                await self._write(send, data)
        await self._write(send, b"data: [DONE]\n\n")
        await self._write(send, b"", more=False)

    async def _write_comments(self, send: Send) -> None:
        """`: waiting 3` when the place in the queue changes, and something when all is silent."""
        told = 0
        while True:
            position = self._queue_position()
            silence = time.monotonic() - self._last_sent
            if position and (position != told or silence >= self._keep_alive_interval):
                await self._write(send, b": waiting %d\n\n" % position)
            elif silence >= self._keep_alive_interval:
                await self._write(send, b": still here\n\n")
            told = position
            rest = self._keep_alive_interval - (time.monotonic() - self._last_sent)
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS if position else max(rest, 0.01))

    async def _write(self, send: Send, data: bytes, *, more: bool = True) -> None:
        """Send something, unless it is a comment that waited until all was sent."""
        self._last_sent = time.monotonic()
        async with asyncio.timeout(self._write_timeout), self._sending:
            if not self._is_complete:
                await send({"type": "http.response.body", "body": data, "more_body": more})
                self._is_complete = not more


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
