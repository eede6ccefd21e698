"""Whether a model was made with a tokenizer, by the numbers in its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["check_model"]


def check_model(codec: Codec, config: Mapping[str, Any], directory: str | Path) -> int:
    """Check that a model and a tokenizer belong together.

    A model may have more rows than there are ids: rows that pad it to a round number mean
    nothing. It may have fewer only where no text can become an id that it lacks.

    Args:
        codec: The tokenizer.
        config: `config.json` of the model.
        directory: Where it lies, for the message.

    Returns:
        How many ids the model can read and write: they are below this number.

    Raises:
        CheckpointError: The model was made with another vocabulary.
    """
    added = codec.added_tokens.tokens
    rows, size = config.get("vocab_size"), len(codec.vocabulary)
    where = repr(str(directory))
    if not isinstance(rows, int) or rows < size:
        raise CheckpointError(
            f"{where}: the model has {rows} ids, its vocabulary {size}; put the vocab.txt that"
            " it was trained with beside it"
        )
    for token_id, token in added.items():
        if token_id >= rows and not token.special:
            raise CheckpointError(
                f"{where}: the model has {rows} ids, and the added token {token.content!r} has"
                f" id {token_id}; call resize_token_embeddings({codec.n_vocab}) and save it again"
            )
    count = min(rows, codec.n_vocab)
    for token_id in range(size, count):
        if token_id not in added:
            raise CheckpointError(
                f"{where}: id {token_id} has no token, though there are added tokens after it;"
                " name it in added_tokens_decoder of tokenizer_config.json"
            )
    ends = config.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if rows > count and isinstance(end, int) and end >= count:
            raise CheckpointError(
                f"{where}: the model has {rows} ids, its vocabulary {size}, and its texts end"
                f" with id {end}; put the vocab.txt that it was trained with beside it"
            )
    return count
