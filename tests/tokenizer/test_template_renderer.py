"""Whoever interrupts, forks, signals or closes: a rendering is its own, or an error, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.tokenizer import template_renderer, template_worker
from gpt_neox_japanese.tokenizer.template_renderer import TemplateRenderer
from tests.forks import in_child
from tests.tokenizer.template_processes import watch

SLOW = (
    "{% if seconds %}{% for a in range(300) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    "{% endif %}{{ name }}"
)
ENDLESS = SLOW.replace("300", "99999").replace("seconds", "endless")

needs_alarm = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@contextmanager
def soon(action: Callable[[], None]) -> Iterator[None]:
    """Let a signal handler do something in the middle of the block."""
    before = signal.signal(signal.SIGALRM, lambda *_: action())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def failures(renderer: TemplateRenderer, count: int) -> tuple[list[threading.Thread], list[str]]:
    """Threads that each render without end, and what they are told."""
    told: list[str] = []

    def render() -> None:
        with pytest.raises(ArgumentError) as failure:
            renderer.render({"endless": True})
        told.append(str(failure.value))

    threads = [threading.Thread(target=render, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, told


@needs_alarm
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_after_an_interrupt_the_next_text_is_its_own(error: type[BaseException]) -> None:
    def interrupt() -> None:
        raise error

    with closing(TemplateRenderer(SLOW)) as renderer:
        with pytest.raises(error), soon(interrupt):
            renderer.render({"name": "interrupted", "seconds": True})
        assert renderer.render({"name": "next"}) == "next"


@needs_alarm
def test_a_worker_that_was_interrupted_while_it_reads_the_template_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    (tmp_path / "worker.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    started = watch(monkeypatch)
    with closing(TemplateRenderer(SLOW)) as renderer:
        started[0].kill()
        started[0].wait()
        with monkeypatch.context() as patch:
            patch.setattr(template_renderer, "_WORKER", tmp_path / "worker.py")
            with pytest.raises(KeyboardInterrupt), soon(interrupt):
                renderer.render({"name": "interrupted"})
        assert renderer.render({"name": "next"}) == "next"


@needs_alarm
def test_a_signal_handler_renders_in_the_middle_of_a_rendering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = watch(monkeypatch)
    texts = []
    with closing(TemplateRenderer(SLOW)) as renderer:
        with soon(lambda: texts.append(renderer.render({"name": "inner"}))):
            texts.append(renderer.render({"name": "outer", "seconds": True}))
        texts.append(renderer.render({"name": "after"}))
    assert texts == ["inner", "outer", "after"]
    assert [process.returncode is None for process in started] == [False, False]


@needs_alarm
def test_a_signal_handler_closes_in_the_middle_of_a_rendering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = watch(monkeypatch)
    renderer = TemplateRenderer(ENDLESS)
    with pytest.raises(ArgumentError, match="is closed"), soon(renderer.close):
        renderer.render({"endless": True})
    assert [process.returncode is None for process in started] == [False]


@needs_fork
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_renders_whatever_its_parent_is_doing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = watch(monkeypatch)
    with closing(TemplateRenderer(ENDLESS)) as renderer:
        threads, _ = failures(renderer, 1)
        assert in_child(lambda: renderer.render({"name": "child"}) == "child") == 0
        assert in_child(lambda: renderer.close() is None) == 0  # type: ignore[func-returns-value]
        assert started[0].poll() is None  # the parent's own
    threads[0].join()


@needs_fork
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_parent_and_child_do_not_read_each_others_texts() -> None:
    with closing(TemplateRenderer(SLOW)) as renderer:
        for name in ("parent", "mother", "father"):
            assert in_child(lambda: renderer.render({"name": "child"}) == "child") == 0
            assert renderer.render({"name": name}) == name


def test_closing_ends_what_is_rendered_and_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started = watch(monkeypatch)
    renderer = TemplateRenderer(ENDLESS)
    threads, told = failures(renderer, 3)
    renderer.close()
    renderer.close()
    for thread in threads:
        thread.join()
    assert told == ["the chat template is closed; make another one"] * 3
    with pytest.raises(ArgumentError, match="is closed; make another one"):
        renderer.render({"name": "late"})
    assert [process.returncode is None for process in started] == [False]


def test_a_process_that_the_system_ended_is_followed_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = watch(monkeypatch)
    with closing(TemplateRenderer(SLOW)) as renderer:
        started[0].kill()
        started[0].wait()
        assert renderer.render({"name": "next"}) == "next"


def test_a_process_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/missing/python")
    with pytest.raises(ArgumentError, match=r"no process can be started for it.*/missing/python"):
        TemplateRenderer(SLOW)


def test_a_time_limit_that_cannot_be_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(TemplateRenderer("{{ name }}")) as renderer:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ArgumentError, match="can't start new thread"):
            renderer.render({"name": "猫"})
        monkeypatch.undo()
        assert renderer.render({"name": "犬"}) == "犬"


def test_a_process_that_ends_early_is_not_called_slow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.setattr(template_renderer, "_WORKER", tmp_path / "worker.py")
    with pytest.raises(ArgumentError, match="its process ended with code 3"):
        TemplateRenderer(SLOW)


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs alarm")
def test_a_worker_ends_itself_where_nobody_is_left_to_end_it() -> None:
    program = "\n".join(
        [
            "import runpy",
            f"worker = runpy.run_path({template_worker.__file__!r})",
            "worker['main'].__globals__['_MAX_SECONDS'] = 1",
            "worker['main']()",
        ]
    )
    lines = f'"{ENDLESS}"\n{{"endless": true}}\n'
    command: list[Any] = [sys.executable, "-c", program]
    ended = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGALRM, ended.stderr
