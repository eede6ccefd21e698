"""Rendering a stranger's Jinja template: in another process, ended if it takes too long."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_neox_japanese.errors import ArgumentError

__all__ = ["TemplateRenderer"]

_MAX_SECONDS = 5.0  # of one rendering
_WORKER = Path(__file__).with_name("template_worker.py")


class TemplateRenderer:
    """Renders a template in another process (`template_worker`), and ends it if it takes too long.

    Threads take turns. A signal handler that renders in the middle of a rendering, and a process
    that was forked, use a worker of their own.

    Args:
        source: The template.

    Raises:
        ArgumentError: It is no template, or no process can be started.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._is_closed = False
        self._turn = threading.RLock()
        self._worker: _Worker | None = None
        _renderers.add(self)
        self._worker = _Worker(source)

    def __del__(self) -> None:
        self.close()

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for some variables.

        Args:
            variables: What JSON can hold.

        Returns:
            What the template makes of them.

        Raises:
            ArgumentError: The template refuses them, fails, or takes too long; no process can be
                started; or this is closed.
        """
        with self._turn:
            worker = self._ready_worker()
            try:
                return worker.ask(variables, "refuses these messages")
            except ArgumentError:
                if self._is_closed:
                    raise _closed_error() from None
                raise
            finally:
                # Whoever asks next would hear the answer to a question that was interrupted.
                if worker.is_asked or self._is_closed or worker is not self._worker:
                    worker.end()

    def close(self) -> None:
        """End the process, and what it renders. May be repeated; nothing is rendered after it."""
        self._is_closed = True
        worker = self._worker
        if worker is not None:
            worker.kill()
            with self._turn:
                if not worker.is_asked:  # else this is a signal handler, and `render` goes on
                    worker.end()

    def _ready_worker(self) -> _Worker:
        if self._is_closed:
            raise _closed_error()
        worker = self._worker
        if worker is None or worker.is_asked:
            worker = self._worker = _Worker(self._source)
        elif not worker.is_alive:
            worker.end()
            worker = self._worker = _Worker(self._source)
        return worker

    def _leave_to_parent(self) -> None:
        """In a process that was forked: the worker is the parent's, and so is the turn."""
        self._turn = threading.RLock()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.let_go()


class _Worker:
    """A process that knows a template and answers one question at a time.

    Args:
        source: The template.

    Attributes:
        is_asked: Whether an answer may still come.

    Raises:
        ArgumentError: It is no template, or no process can be started.
    """

    def __init__(self, source: str) -> None:
        self.is_asked = False
        try:
            self._process = subprocess.Popen(  # noqa: S603 our own file
                [sys.executable, "-P", str(_WORKER)],
                bufsize=0,  # a buffer would be written twice if a fork copies it
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the server's to answer
            )
        except OSError as error:
            raise ArgumentError(
                f"the chat template cannot be rendered: no process can be started for it: {error}"
            ) from error
        try:
            self.ask(source, "cannot be read")
        except BaseException:
            self.end()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, value: Any, failure: str) -> str:
        """What the process makes of a value.

        Args:
            value: The template at first, then variables.
            failure: What the template does if it fails, for the message.

        Returns:
            Text.

        Raises:
            ArgumentError: The template fails, takes too long, or the process ends.
        """
        question = json.dumps(value).encode("ascii") + b"\n"
        is_late = threading.Event()

        def end_late() -> None:
            is_late.set()
            self.kill()

        timer = threading.Timer(_MAX_SECONDS, end_late)
        timer.daemon = True
        self.is_asked = True
        try:
            timer.start()
        except RuntimeError as error:  # no more threads, or the program ends
            raise ArgumentError(f"the chat template cannot be rendered: {error}") from error
        try:
            line = self._exchange(question)
        finally:
            timer.cancel()
            timer.join()  # it kills now or never
        if is_late.is_set():
            raise ArgumentError(
                f"the chat template {failure}: it takes more than {_MAX_SECONDS:g} s"
            )
        if not line.endswith(b"\n"):
            raise ArgumentError(
                f"the chat template {failure}: its process ended with code"
                f" {self._process.returncode}, most likely for want of memory"
            )
        answer: dict[str, str] = json.loads(line)
        self.is_asked = False
        if "error" in answer:
            raise ArgumentError(f"the chat template {failure}: {answer['error']}")
        return answer["text"]

    def kill(self) -> None:
        """End the process at once; whoever waits for its answer is told. Any thread may do it."""
        self._process.kill()

    def end(self) -> None:
        """End the process, and close its pipes."""
        self.kill()
        self._process.wait()
        self._close_pipes()

    def let_go(self) -> None:
        """In a process that was forked: close this copy of the pipes."""
        self._close_pipes()
        self._process.poll()  # which finds that it is nobody to wait for

    def _exchange(self, question: bytes) -> bytes:
        """The line that answers, or what there is of it where the process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = bytearray()
        try:
            unsent = memoryview(question)
            while unsent:
                unsent = unsent[self._process.stdin.write(unsent) :]
            while not line.endswith(b"\n") and (piece := self._process.stdout.read(1 << 16)):
                line += piece
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EINVAL):  # the latter is Windows' name for it
                raise
        if not line.endswith(b"\n"):
            self._process.wait()
        return bytes(line)

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _closed_error() -> ArgumentError:
    return ArgumentError("the chat template is closed; make another one")


_renderers: weakref.WeakSet[TemplateRenderer] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for renderer in _renderers:
        renderer._leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
