"""The vocabulary and the small model that come with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["default_model_directory"]


def default_model_directory() -> Path:
    """Where the embedded model lies: a checkpoint directory like any other."""
    return Path(__file__).parent / "default"
