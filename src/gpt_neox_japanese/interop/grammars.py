"""Structured output: what ids decode to, told to the libraries that engines compile grammars with.

xgrammar and llguidance take the name of an id for its text. Names differ where texts are the same
(`TokenNames`), and a special token has a name but no text that an engine would show. Either would
let an engine write what the grammar does not allow.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import wraps
from typing import Any

from gpt_neox_japanese.tokenizer.hf.tokenizer import GPTNeoXJapaneseTokenizer

__all__ = ["teach_grammars"]


def teach_grammars() -> None:
    """Make xgrammar and llguidance, where they are installed, read our tokenizers exactly.

    Tokenizers of others they read as before. Repeating it is harmless.
    """
    if importlib.util.find_spec("xgrammar"):
        import xgrammar

        _replace(xgrammar.TokenizerInfo, "from_huggingface", _for_xgrammar, staticmethod)
    if importlib.util.find_spec("llguidance"):
        from llguidance import hf

        _replace(hf, "from_tokenizer", _for_llguidance)


def _replace(
    owner: Any,
    name: str,
    ours: Callable[..., Any],
    kind: Callable[[Any], Any] = lambda function: function,
) -> None:
    """Put `ours` in the place of a function whose first argument is a tokenizer, for our own."""
    theirs = getattr(owner, name)
    if hasattr(theirs, "_neox_ja"):
        return

    @wraps(theirs)
    def chosen(tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
        is_ours = isinstance(tokenizer, GPTNeoXJapaneseTokenizer)
        return (ours if is_ours else theirs)(tokenizer, *args, **kwargs)

    chosen._neox_ja = True  # type: ignore[attr-defined]
    setattr(owner, name, kind(chosen))


def _for_xgrammar(
    tokenizer: GPTNeoXJapaneseTokenizer,
    *,
    vocab_size: int | None = None,
    stop_token_ids: list[int] | int | None = None,
) -> Any:
    """As `xgrammar.TokenizerInfo.from_huggingface`; ids without a text are not written at all."""
    from xgrammar import TokenizerInfo, VocabType

    size = vocab_size or len(tokenizer)
    if stop_token_ids is None and tokenizer.eos_token_id is not None:
        stop_token_ids = tokenizer.eos_token_id
    return TokenizerInfo(
        _texts(tokenizer, size),
        VocabType.RAW,
        vocab_size=size,
        stop_token_ids=stop_token_ids,
        add_prefix_space=False,
    )


def _for_llguidance(
    tokenizer: GPTNeoXJapaneseTokenizer,
    n_vocab: int | None = None,
    eos_token: int | list[int] | None = None,
    slices: list[str] | None = None,
) -> Any:
    """What llguidance makes of a tokenizer of transformers, made of ours."""
    from llguidance import LLTokenizer, TokenizerWrapper

    size = n_vocab or len(tokenizer)
    wrapper = TokenizerWrapper(_Vocabulary(tokenizer, size))
    return LLTokenizer(wrapper, n_vocab=size, eos_token=eos_token, slices=slices)


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: GPTNeoXJapaneseTokenizer, size: int) -> None:
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id = tokenizer.bos_token_id
        self.tokens = _texts(tokenizer, size)
        self.special_token_ids = [i for i, text in enumerate(self.tokens) if not text]
        self._encode = tokenizer.codec.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)


def _texts(tokenizer: GPTNeoXJapaneseTokenizer, size: int) -> list[bytes]:
    """The text of each id below `size`, or the byte; none for special tokens and unused ids."""
    decoded = tokenizer._tokens.decoded()
    special = tokenizer._special_ids()
    tokens = [b"" if i in special else decoded.get(i, b"") for i in range(size)]
    return [token if isinstance(token, bytes) else token.encode() for token in tokens]
