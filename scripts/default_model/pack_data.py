"""Carry a prepared corpus to a machine that takes files in small parts only, and unpack it there.

    python scripts/default_model/pack_data.py pack DATA PARTS [--part-bytes 41e6]
    python scripts/default_model/pack_data.py unpack PARTS DATA

PARTS gets the directories `part-0`, `part-1`, …, none larger than asked for. They can be copied one
after the other; `unpack` wants them all, uses every core, and checks the whole against the sizes
that the manifest says. Tokens pack to half their size, less than the text packs to.
"""

from __future__ import annotations

import argparse
import lzma
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gpt_neox_japanese.training.data.shards import Manifest, PreparedData

CHUNK = 2**24
# The low and the high byte of a token are told apart by where they stand.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 2, "lp": 1, "pb": 1}]


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack or unpack."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["pack", "unpack"])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--part-bytes", type=float, default=41e6)
    options = parser.parse_args(arguments)
    if options.task == "pack":
        pack(options.source, options.target, int(options.part_bytes))
    else:
        unpack(options.source, options.target)


def pack(data: Path, parts: Path, part_bytes: int) -> None:
    """Write the parts of a prepared corpus.

    Args:
        data: What `neox-ja prepare` made.
        parts: A directory to make.
        part_bytes: What a part may have.
    """
    PreparedData(data)  # whole, or an error
    jobs = []
    for file in sorted(data.iterdir()):
        if file.suffix != ".jsonl":  # the held-out text, which nobody needs for training
            jobs += [(file, start) for start in range(0, file.stat().st_size, CHUNK)]
    number, size = 0, 0
    with ThreadPoolExecutor() as pool:
        for (file, start), packed in zip(jobs, pool.map(_compress, jobs), strict=True):
            if size and size + len(packed) > part_bytes:
                number, size = number + 1, 0
            size += len(packed)
            part = parts / f"part-{number}"
            part.mkdir(parents=True, exist_ok=True)
            (part / f"{file.name}.{start // CHUNK:04}.xz").write_bytes(packed)
    for part in sorted(parts.glob("part-*")):
        print(f"{part}: {sum(file.stat().st_size for file in part.iterdir()):,} bytes")


def unpack(parts: Path, data: Path) -> None:
    """Put a prepared corpus together again.

    Args:
        parts: What `pack` made.
        data: A directory to make.
    """
    data.mkdir(parents=True)
    chunks: dict[str, list[Path]] = {}
    for path in sorted(parts.glob("part-*/*.xz"), key=lambda path: path.name):
        chunks.setdefault(path.name.rsplit(".", 2)[0], []).append(path)
    with ThreadPoolExecutor() as pool:
        for name, paths in chunks.items():
            with (data / name).open("wb") as file:
                file.writelines(pool.map(_decompress, paths))
    manifest = Manifest.load(data)
    PreparedData(data)
    print(f"{data}: {manifest.train.tokens:,} tokens, {shutil.disk_usage(data).free:,} bytes free")


def _compress(job: tuple[Path, int]) -> bytes:
    path, start = job
    with path.open("rb") as file:
        file.seek(start)
        return lzma.compress(file.read(CHUNK), lzma.FORMAT_XZ, filters=_FILTERS)


def _decompress(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes())


if __name__ == "__main__":
    main()
