"""What this process may use of the machine: processor cores and memory.

A container usually sees all cores and all memory of its host, and is killed or throttled when it
uses more than its limits. The limits are in Linux's control groups, of version 1 or 2.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

__all__ = ["available_memory", "performance_cores", "usable_cores"]

_PROCESS_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_ROOT = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Count the cores that this process may use.

    Affinity (`taskset`) and a container's quota count where the system has them: Linux has both;
    macOS and Windows give a process all cores.

    Returns:
        At least 1.
    """
    # Looked at each time, because a process may change its own.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, min(cores, _quota_in_cores()))


@cache
def performance_cores() -> int | None:
    """How many fast cores an Apple processor has; None on other systems.

    Threads that share a phase's work wait for the slowest, and an efficiency core is slower. macOS
    does not let a process choose its cores.
    """
    if sys.platform != "darwin":
        return None
    count, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    failed = ctypes.CDLL(None).sysctlbyname(
        b"hw.perflevel0.physicalcpu",
        ctypes.byref(count),
        ctypes.byref(size),
        None,
        ctypes.c_size_t(0),
    )
    return None if failed or count.value < 1 else count.value  # older systems have no such name


def available_memory() -> int:
    """Measure how much memory this process may still take before the system swaps or kills it.

    Needs psutil, which comes with the extra `train`.

    Returns:
        Bytes; 0 or more.
    """
    import psutil

    free = [int(psutil.virtual_memory().available)]
    for group in _cgroups("memory"):
        limit = _first_number(group, "memory.max", "memory.limit_in_bytes")
        used = _first_number(group, "memory.current", "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free.append(limit - used + _reclaimable(group))
    return max(0, min(free))


@cache
def _quota_in_cores() -> int:
    """The smallest quota of processor time, rounded up to whole cores."""
    quotas = [2**16]
    for group in _cgroups("cpu"):
        text = _read(group / "cpu.max")  # "QUOTA PERIOD" or "max PERIOD"
        if text is None:
            text = f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            quotas.append(-(-int(quota) // int(period)))
    return min(quotas)


def _reclaimable(group: Path) -> int:
    """Bytes of a group's page cache, which the system gives up when memory is short."""
    for line in (_read(group / "memory.stat") or "").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _first_number(group: Path, *names: str) -> int | None:
    """The number in the first of these files that holds one; `max` and the like are none."""
    texts = (_read(group / name) for name in names)
    return next((int(text) for text in texts if text is not None and text.isdecimal()), None)


def _cgroups(controller: str) -> Iterator[Path]:
    """The control groups of this process, from the innermost outward; none but on Linux."""
    for line in (_read(_PROCESS_CGROUPS) or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:  # version 2
            root = _CGROUP_ROOT
        elif controller in controllers.split(","):
            root = _CGROUP_ROOT / controller
        else:
            continue
        # Inside a container the path may be the host's, and only its end, or nothing, is there.
        inner = root / group.strip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
