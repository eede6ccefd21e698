"""Turn a corpus into arrays of ids, and read them back.

    python examples/tokenize_corpus.py
    python examples/tokenize_corpus.py CORPUS OUTPUT

CORPUS is a file or directory of .txt, .jsonl (also .gz or .zst) or .parquet. OUTPUT is the same as
`neox-ja tokenize CORPUS --output OUTPUT` makes. It needs `pip install 'gpt-neox-japanese[train]'`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from gpt_neox_japanese import Codec, default_model_directory
from gpt_neox_japanese.tokenization.arrays import tokenize_corpus


def sample(directory: Path) -> Path:
    """A corpus of two documents."""
    file = directory / "works.jsonl"
    works = {
        "猫": "吾輩は猫である。名前はまだ無い。",
        "門": "宗助は先刻から縁側へ坐蒲団を持ち出して",
    }
    lines = (json.dumps({"id": title, "text": text}) for title, text in works.items())
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


if __name__ == "__main__":  # the processes that tokenize import this file
    with tempfile.TemporaryDirectory() as temporary:
        given = [Path(argument) for argument in sys.argv[1:3]]
        corpus, output = given or (sample(Path(temporary)), Path(temporary, "ids"))

        print(tokenize_corpus([corpus], default_model_directory(), output))

        ids = np.load(output / "ids.npy", mmap_mode="r")  # uint16 [tokens]
        bounds = np.load(output / "bounds.npy")  # int64 [documents + 1]
        first = ids[bounds[0] : bounds[1]]
        print(first, Codec.load(default_model_directory()).decode(first))
