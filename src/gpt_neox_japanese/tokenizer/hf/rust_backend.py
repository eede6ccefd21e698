"""A `tokenizers.Tokenizer` that decodes, for those who ask a tokenizer for its Rust half.

`tokenizers.decoders.DecodeStream`, and with it the streaming of `transformers serve` and of vLLM,
works on such an object alone. It cannot encode: that would need our algorithm in Rust, so it has
no way to split a text and raises where it would have to guess.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import WordLevel

__all__ = ["decode_only_tokenizer"]

# Put before a name that another token has too, and taken away when decoding. Not a character.
_MARK = "\uffff"


def decode_only_tokenizer(
    decoded: Mapping[int, str | bytes], special: Collection[int]
) -> Tokenizer:
    """Build a tokenizer that decodes ids as our decoder does.

    Args:
        decoded: What each id stands for: text, or one byte of a character. Bytes that form no
            character become one U+FFFD each.
        special: Ids that `skip_special_tokens=True` leaves out.

    Returns:
        A tokenizer that cannot encode.
    """
    names: dict[str, int] = {}
    for token_id, token in decoded.items():
        name = f"<0x{token[0]:02X}>" if isinstance(token, bytes) else token
        while name in names:
            name = _MARK + name
        names[name] = token_id
    tokenizer = Tokenizer(WordLevel(vocab=names, unk_token=_MARK))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_MARK, ""), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(
        [
            AddedToken(name, normalized=False)
            for name, token_id in names.items()
            if token_id in special
        ]
    )
    return tokenizer
