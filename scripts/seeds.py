"""What fuzzers begin with: a vocabulary of 289 ids, and folders that are laid out from memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt_neox_japanese import Codec

__all__ = ["lay_out", "small_codec"]

_PIECES = ("猫", "吾輩", "は", "で,デ", "ある", "。", "、", "名前", "ー", "a", "b")
_TAGS = (
    *("<BR>", "<SP>", "<TAB>", "<URL>", "<EMAIL>", "<TEL>", "<DATE>", "<PRICE>", "<BLOCK>"),
    *("<KIGOU>", "<U2000U2BFF>", "<|emoji1|>"),
    *(f"<|byte{byte}|>" for byte in range(256)),
    *("<|startoftext|>", "<|endoftext|>"),
)


def small_codec() -> Codec:
    """A tokenizer whose files are read in a millisecond."""
    from gpt_neox_japanese import Codec
    from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

    forms = (*(tuple(piece.split(",")) for piece in _PIECES), *((tag,) for tag in _TAGS))
    return Codec(Vocabulary(forms, {"😀": "<|emoji1|>"}, {"<|emoji1|>": "😀"}))


def lay_out(source: Path, target: Path) -> None:
    """Write the files of a folder that does not change into another.

    Args:
        source: Read once, and then kept in memory.
        target: Made, with its parents, if need be.
    """
    for name, data in _contents(source):
        file = target / name
        try:
            file.write_bytes(data)
        except FileNotFoundError:
            file.parent.mkdir(parents=True)
            file.write_bytes(data)


@cache
def _contents(folder: Path) -> tuple[tuple[str, bytes], ...]:
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return tuple((str(file.relative_to(folder)), file.read_bytes()) for file in files)
