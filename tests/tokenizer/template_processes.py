"""What renders chat templates, as a test sees it."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from gpt_neox_japanese.tokenizer import template_renderer


def watch(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[Any]]:
    """The processes that are started from now on to render templates."""
    started: list[subprocess.Popen[Any]] = []
    start = subprocess.Popen

    def watched(arguments: list[str], **options: Any) -> subprocess.Popen[Any]:
        process = start(arguments, **options)
        if str(template_renderer._WORKER) in arguments:
            started.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", watched)
    return started
