"""One client's connection: uvicorn's, where it would wait, fail or answer otherwise than we do."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.gate import STRICT_HEADERS

__all__ = ["Connection"]

_SECONDS_FOR_A_HEAD = 30.0  # of a request, which a client has begun to send, or has not
_MAX_BYTES_AHEAD = 1 << 16  # of further requests, before the answer to the first is complete


class Connection(H11Protocol):
    """Knows its transport, and does not wait for ever for the head of a request."""

    _head_deadline: float | None = None
    _sent_too_much_ahead = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request, or of those after it."""
        if self._sent_too_much_ahead:  # read all the same, to notice when the client leaves
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._wait_for_head()
            return
        self._head_deadline = None
        if self.conn.their_state is h11.DONE:
            # What a client sends ahead waits, and uvicorn would read no more until the answer is
            # complete: it would not notice that the client has left.
            ahead, _ = self.conn.trailing_data
            self._sent_too_much_ahead = len(ahead) > _MAX_BYTES_AHEAD
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless not all of it was taken."""
        if self._sent_too_much_ahead:
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, _msg: str) -> None:
        """Refuse what is no HTTP, as every other error is told."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer has begun
            self.transport.close()
            return
        error = ApiError(
            400,
            "this is no HTTP/1.1 request, or its head is too large; send one with one Host header",
            headers={**STRICT_HEADERS, "Cache-Control": "no-store", "Connection": "close"},
        ).response
        for event in (
            h11.Response(status_code=error.status_code, headers=error.raw_headers),
            h11.Data(data=bytes(error.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _wait_for_head(self) -> None:
        """Not longer for one that comes in small parts."""
        if self._head_deadline is None:
            self._head_deadline = self.loop.time() + _SECONDS_FOR_A_HEAD
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(
            self._head_deadline, self.timeout_keep_alive_handler
        )
