from __future__ import annotations

from pathlib import Path

import pytest

from gpt_neox_japanese.training.data.prepare import prepare


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer_directory: Path
) -> Path:
    """That corpus, prepared."""
    output = tmp_path_factory.mktemp("data") / "prepared"
    prepare([corpus], tokenizer_directory, output, held_out=0.2, workers=1)
    return output
