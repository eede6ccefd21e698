"""Corpus files that tests write."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import zstandard

LINES = [{"id": "a", "text": "吾輩は猫である。"}, {"text": "名前はまだ無い。"}]


def write_jsonl(path: Path, lines: list[object]) -> Path:
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix)
    path.write_bytes(packed(data) if packed else data)
    return path
