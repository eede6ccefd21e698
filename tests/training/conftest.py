from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.prepare import prepare
from tests.tokenizer.small import vocabulary

TEXT = "吾輩は猫である。名前はまだ無い。"


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of the characters of TEXT."""
    directory = tmp_path_factory.mktemp("tokenizer")
    Codec(vocabulary(sorted(set(TEXT))), legacy=False).save(directory)
    return directory


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty documents of rising length."""
    file = tmp_path_factory.mktemp("corpus") / "works.jsonl"
    lines = ({"id": str(n), "text": TEXT * (n + 1)} for n in range(40))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer_directory: Path
) -> Path:
    """That corpus, prepared."""
    output = tmp_path_factory.mktemp("data") / "prepared"
    prepare([corpus], tokenizer_directory, output, held_out=0.2, workers=1)
    return output
