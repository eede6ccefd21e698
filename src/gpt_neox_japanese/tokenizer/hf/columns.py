"""What is told of a batch beside its ids: the columns asked for, and which characters are where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import BatchEncoding

from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.hf.alignment import Alignment, Alignments
from gpt_neox_japanese.tokenizer.hf.rows import Padding, Row, TextBatch, offsets, sequence_ids
from gpt_neox_japanese.tokenizer.hf.token_names import TokenTable
from gpt_neox_japanese.tokenizer.special_tokens import AllowedSpecial

__all__ = ["align", "columns", "encode_one"]

_NO_PADDING = Padding(None, "right")


def encode_one(
    text: str, encoder: Codec, table: TokenTable, allowed_special: AllowedSpecial, with_mask: bool
) -> BatchEncoding:
    """What a call returns that passes one text and asks for no more than its ids.

    Most calls are such. Everything else that a call may ask for takes longer to sort out than a
    short text to encode; here it is not sorted out.

    Args:
        text: A text.
        encoder: Gives the ids.
        table: Names them.
        allowed_special: Special tokens that become their ids where the text spells them out.
        with_mask: Whether `attention_mask` stands beside `input_ids`.

    Returns:
        Both, not in lists, and the alignment of the only row.

    Raises:
        TokenizationError: The text holds a lone surrogate.
    """
    ids = encoder.encode(text, allowed_special=allowed_special)
    data = {"input_ids": ids, "attention_mask": [1] * len(ids)} if with_mask else {"input_ids": ids}

    def align_row(_: int) -> Alignment:
        batch = TextBatch([(text,)], encoder, allowed_special=allowed_special, truncation=None)
        return align(batch.rows[0], table, _NO_PADDING, None, None)

    return BatchEncoding(data, Alignments(1, align_row), n_sequences=1)  # type: ignore[arg-type]


def columns(
    batch: TextBatch,
    ids: list[list[int]],
    names: Sequence[str],
    padding: Padding,
    *,
    pad_id: int | None,
    pad_type_id: int,
) -> dict[str, list[Any]]:
    """`input_ids` and each column that was asked for, padded.

    Args:
        batch: The rows.
        ids: `batch.input_ids()`.
        names: Columns, as transformers calls them.
        padding: How rows are made equally long.
        pad_id: Fills up `input_ids`.
        pad_type_id: Fills up `token_type_ids`.

    Returns:
        One item a row in each column.
    """
    found: dict[str, list[Any]] = {"input_ids": padding.fill(ids, pad_id)}
    for name in names:
        match name:
            case "attention_mask":
                found[name] = padding.fill([[1] * len(row) for row in ids], 0)
            case "special_tokens_mask":
                found[name] = padding.fill([[0] * len(row) for row in ids], 1)
            case "token_type_ids":
                found[name] = padding.fill([sequence_ids(row) for row in batch.rows], pad_type_id)
            case "offset_mapping":
                found[name] = padding.fill([offsets(row) for row in batch.rows], (0, 0))
            case "length":
                found[name] = [len(row) for row in found["input_ids"]]
            case "overflow_to_sample_mapping":
                found[name] = batch.sample_of_row
    return found


def align(
    row: Row, table: TokenTable, padding: Padding, pad_id: int | None, pad_token: str | None
) -> Alignment:
    """Which characters the tokens of a row stand for.

    Args:
        row: A row.
        table: Names its tokens.
        padding: How rows are made equally long.
        pad_id: Fills up the ids.
        pad_token: Its name.

    Returns:
        The alignment, padding included.
    """
    ids = [i for source, start, stop in row for i in source.ids[start:stop]]
    surfaces = [s for source, start, stop in row for s in source.surfaces[start:stop]]
    words = [word for source, start, stop in row for word in source.words[start:stop]]
    return Alignment(
        padding.fill([ids], pad_id)[0],
        padding.fill([list(map(table.written, ids, surfaces))], pad_token)[0],
        padding.fill([offsets(row)], (0, 0))[0],
        padding.fill([sequence_ids(row)], None)[0],
        padding.fill([words], None)[0],
        n_sequences=len(row),
    )
