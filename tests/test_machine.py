"""What a process may use, on systems that tell it in different ways, and inside containers."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpt_neox_japanese import machine
from gpt_neox_japanese.machine import available_memory, usable_cores


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty tree of control groups; the process is in `/box/job` of version 2."""
    (tmp_path / "of-process").write_text("0::/box/job\n", encoding="ascii")
    (tmp_path / "groups" / "box" / "job").mkdir(parents=True)
    monkeypatch.setattr(machine, "_PROCESS_CGROUPS", tmp_path / "of-process")
    monkeypatch.setattr(machine, "_CGROUP_ROOT", tmp_path / "groups")
    machine._quota_in_cores.cache_clear()
    yield tmp_path / "groups"
    machine._quota_in_cores.cache_clear()


def test_a_process_has_the_cores_it_is_bound_to(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert usable_cores() == 3


def test_where_no_process_can_be_bound_it_has_all_cores(
    groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # macOS and Windows
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_the_tokenizer_works_where_no_process_can_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt_neox_japanese import Codec, default_model_directory
    from gpt_neox_japanese.tokenizer.encoding import batching

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(batching, "_CHARACTERS_PER_TASK", 4)
    codec = Codec.load(default_model_directory())
    texts = ["吾輩は猫である。"] * 5
    rows = codec.encode_batch_to_numpy(texts)
    assert np.array_equal(rows[4], codec.encode(texts[4]))


@pytest.mark.parametrize(
    ("text", "cores"), [("250000 100000", 3), ("20000 100000", 1), ("max 100000", 64), ("?", 64)]
)
def test_a_quota_of_version_2_counts_in_whole_cores(
    groups: Path, monkeypatch: pytest.MonkeyPatch, text: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    (groups / "box" / "cpu.max").write_text(text + "\n", encoding="ascii")
    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("-1", 64)])
def test_a_quota_of_version_1_counts_too(
    groups: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    machine._PROCESS_CGROUPS.write_text("3:cpu,cpuacct:/box\n0::/\n", encoding="ascii")
    (groups / "cpu" / "box").mkdir(parents=True)
    (groups / "cpu" / "box" / "cpu.cfs_quota_us").write_text(quota, encoding="ascii")
    (groups / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000", encoding="ascii")
    assert usable_cores() == cores


def test_memory_is_what_the_container_leaves_without_what_is_only_cached(groups: Path) -> None:
    pytest.importorskip("psutil")
    whole = available_memory()
    assert whole > 2**20
    (groups / "box" / "memory.max").write_text("5000\n", encoding="ascii")
    (groups / "box" / "memory.current").write_text("4000\n", encoding="ascii")
    assert available_memory() == 1000
    (groups / "box" / "memory.stat").write_text("anon 7\ninactive_file 3000\n", encoding="ascii")
    assert available_memory() == 4000
    (groups / "box" / "memory.max").write_text("max\n", encoding="ascii")
    assert available_memory() > 4000


def test_memory_of_a_container_of_version_1_is_read_too(groups: Path) -> None:
    pytest.importorskip("psutil")
    # As Docker shows it inside: the host's path, and only the container's own files.
    machine._PROCESS_CGROUPS.write_text("4:memory:/docker/0123\n", encoding="ascii")
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text("900", encoding="ascii")
    (groups / "memory" / "memory.usage_in_bytes").write_text("1000", encoding="ascii")
    assert available_memory() == 0


@pytest.mark.parametrize(("answer", "cores"), [(4, 4), (None, None), (0, None)])
def test_macos_is_asked_for_its_performance_cores(
    monkeypatch: pytest.MonkeyPatch, answer: int | None, cores: int | None
) -> None:
    def sysctlbyname(name: bytes, value: object, size: object, *_: object) -> int:
        assert name == b"hw.perflevel0.physicalcpu"
        assert size._obj.value == 4  # type: ignore[attr-defined]
        if answer is None:
            return -1
        value._obj.value = answer  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(sysctlbyname=sysctlbyname))
    machine.performance_cores.cache_clear()
    try:
        assert machine.performance_cores() == cores
    finally:
        machine.performance_cores.cache_clear()
