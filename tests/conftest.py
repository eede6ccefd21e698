"""What several tests need: the shared material, a small vocabulary, a small checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before anything imports Hugging Face libraries: no test reaches another machine by accident.
os.environ["HF_HUB_OFFLINE"] = "1"

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def reference_directory() -> Path:
    """The published vocabulary."""
    directory = SHARED / "reference"
    if not directory.is_dir():
        pytest.skip("needs the published vocabulary in ../shared/reference")
    return directory


@pytest.fixture(scope="session")
def corpus_directory() -> Path:
    """The Aozora corpus."""
    directory = SHARED / "corpus"
    if not directory.is_dir():
        pytest.skip("needs the Aozora corpus in ../shared/corpus")
    return directory
