from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_neox_japanese.corpus import (
    Block,
    Layout,
    map_blocks,
    read_blocks,
)
from gpt_neox_japanese.errors import CorpusError
from tests.corpus.files import LINES, write_jsonl


def characters(block: Block) -> list[int]:
    return [len(d.text) for d in block.documents() if not isinstance(d, CorpusError)]


def test_results_come_in_order_from_one_process_and_from_several(
    tmp_path: Path, tiny_blocks: None
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "猫" * n} for n in range(40)])
    alone, shared = (
        list(map_blocks(characters, read_blocks([file], Layout()), workers)) for workers in (1, 2)
    )
    assert alone == shared
    assert [n for _, found in shared for n in found] == list(range(40))


def end_this_process(block: Block) -> None:
    os._exit(9)


def test_a_worker_that_the_system_ends_is_told(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    with pytest.raises(ChildProcessError, match="fewer --workers"):
        list(map_blocks(end_this_process, read_blocks([file], Layout()), 2))


KILLED = """
import os, signal, sys
from pathlib import Path
from gpt_neox_japanese.corpus import Layout, map_blocks, read_blocks

if __name__ == "__main__":
    blocks = list(read_blocks([Path(sys.argv[1])], Layout())) * 9
    for _ in map_blocks(id, blocks, 2):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    program = tmp_path / "program.py"
    program.write_text(KILLED, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, program, file], stdout=subprocess.PIPE)
    # The workers hold the pipe as well: it ends when the last of them does.
    parent.communicate(timeout=60)
    assert parent.returncode == -signal.SIGKILL


def test_windows_gets_no_more_workers_than_it_can_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [*LINES])
    asked: list[int] = []

    def pool(workers: int, *_: object, **__: object) -> None:
        asked.append(workers)
        raise StopIteration

    monkeypatch.setattr("gpt_neox_japanese.corpus.parallel.ProcessPoolExecutor", pool)
    for system in ("win32", "linux"):
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(RuntimeError):
            next(map_blocks(characters, read_blocks([file], Layout()), 100))
    assert asked == [61, 100]
