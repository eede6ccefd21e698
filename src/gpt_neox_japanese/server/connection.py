"""One client's connection: uvicorn's, where it would wait, fail or answer otherwise than we do."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from gpt_neox_japanese.server.error_responses import ApiError
from gpt_neox_japanese.server.gate import STRICT_HEADERS

__all__ = ["Connection"]

_SECONDS_FOR_A_HEAD = 30.0  # of a request, which a client has begun to send, or has not
_MAX_BYTES_AHEAD = 1 << 16  # of further requests, before the answer to the first is complete


class Connection(H11Protocol):
    """Knows its transport, and waits for ever neither for the head of a request nor for a reader.

    Args:
        write_timeout: Seconds that a client may leave what is sent unread.
        **given: What uvicorn gives.
    """

    _head_deadline: float | None = None
    _sent_too_much_ahead = False
    _unread_timer: asyncio.TimerHandle | None = None

    def __init__(self, *, write_timeout: float, **given: Any) -> None:
        super().__init__(**given)
        self._write_timeout = write_timeout

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

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nobody."""
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the client has read, but not for ever."""
        super().pause_writing()
        self._wait_for_reader()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless not all of it was taken."""
        self._wait_for_reader()
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

    # A transport that is closed keeps what is not read yet, and so do those of answers that wait
    # for their turn: without end if the client neither reads nor leaves.

    def _wait_for_reader(self) -> None:
        self._stop_waiting_for_reader()
        unread = self.transport.get_write_buffer_size()
        if unread:
            self._unread_timer = self.loop.call_later(
                self._write_timeout, self._end_unless_read, unread
            )

    def _stop_waiting_for_reader(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _end_unless_read(self, unread: int) -> None:
        """Break off if the client has read nothing of so many bytes, to which none were added."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and not self.flow.write_paused:  # what it writes will be waited for
            return
        if self.transport.get_write_buffer_size() < unread:
            self._wait_for_reader()
        else:
            self.transport.abort()
