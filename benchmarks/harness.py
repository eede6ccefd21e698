"""What every benchmark needs: fair turns, medians, and a result file that says how it was made."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "circumstances", "interleaved", "median", "write_result"]

RESULTS = Path(__file__).parent / "results"

# Seconds after which the threads of a library that has just worked no longer look for more work, on
# the cores that the next one needs.
_PAUSE = 0.05


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each run once a round, in turn, so that a noisy machine is noisy for all of them.

    A round before the first is not counted: it warms caches and compilers.

    Returns:
        Seconds of each run, one number a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            time.sleep(_PAUSE)
            start = time.perf_counter()
            run()
            elapsed = time.perf_counter() - start
            if number:
                seconds[name].append(elapsed)
    return seconds


def median(seconds: list[float]) -> float:
    """The median, and nothing else: means follow the noise."""
    return statistics.median(seconds)


def write_result(name: str, packages: list[str], **result: Any) -> Path:
    """Write `benchmarks/results/<name>.json` with command, hardware, versions, commit and date."""
    record = circumstances(packages) | result
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def circumstances(packages: list[str]) -> dict[str, Any]:
    """What every result says of how it was made."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _commit(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def _processor() -> str:
    """Vendor, family and model of the first core."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    pairs = (line.partition(":") for line in lines)
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    return f"{fields.get('model name')}, family {fields.get('cpu family')}, {fields.get('model')}"
