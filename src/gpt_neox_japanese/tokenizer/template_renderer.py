"""Rendering a stranger's Jinja template: in another process, ended if it takes too long."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_neox_japanese.errors import ArgumentError

__all__ = ["TemplateRenderer"]

_MAX_SECONDS = 5.0  # of one rendering
_WORKER = Path(__file__).with_name("template_worker.py")


class TemplateRenderer:
    """Renders a template in another process (`template_worker`), and ends it if it takes too long.

    Threads take turns.

    Args:
        source: The template.

    Raises:
        ArgumentError: It is no template.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._running()

    def __del__(self) -> None:
        self.close()

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text for some variables.

        Args:
            variables: What JSON can hold.

        Returns:
            What the template makes of them.

        Raises:
            ArgumentError: The template refuses them, fails, or takes too long.
        """
        with self._lock:
            return self._ask(self._running(), variables, "refuses these messages")

    def close(self) -> None:
        """End the process."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.communicate()

    def _running(self) -> subprocess.Popen[str]:
        """The process, which knows the template."""
        if self._worker is not None and self._worker.poll() is None:
            return self._worker
        self.close()
        worker = self._worker = subprocess.Popen(  # noqa: S603 our own file
            [sys.executable, "-P", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C is the server's to answer
        )
        self._ask(worker, self._source, "cannot be read")
        return worker

    def _ask(self, worker: subprocess.Popen[str], value: Any, failure: str) -> str:
        assert worker.stdin is not None
        assert worker.stdout is not None
        timer = threading.Timer(_MAX_SECONDS, worker.kill)
        timer.daemon = True
        timer.start()
        try:
            print(json.dumps(value), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
        except (OSError, ValueError):  # it ended by itself, or was closed
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            self.close()
            raise ArgumentError(
                f"the chat template {failure}: it takes more than {_MAX_SECONDS:g} s, or too much"
                " memory"
            )
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise ArgumentError(f"the chat template {failure}: {answer['error']}")
        return answer["text"]
