"""The vocabulary and the small model that come with the package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["default_chat_template", "default_model_directory"]


def default_model_directory() -> Path:
    """Where the embedded model lies: a checkpoint directory like any other."""
    return Path(__file__).parent / "default"


def default_chat_template() -> str:
    """The Jinja template of conversations for models that have none of their own."""
    return (Path(__file__).parent / "chat_template.jinja").read_text(encoding="utf-8")
