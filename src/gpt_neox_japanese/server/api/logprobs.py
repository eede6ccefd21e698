"""How tokens are told: names, bytes, log-probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpt_neox_japanese.inference.outputs import OutputToken
from gpt_neox_japanese.tokenizer.codec import Codec

__all__ = ["TokenNames", "chat_logprobs", "completion_logprobs", "token_details"]

_LOWEST = -9999.0  # stands for minus infinity, which JSON does not have


class TokenNames:
    r"""What each id is called. No two ids have one name, so that none merge in an object.

    A token is called by its text, one byte of a character `bytes:\xe9`. Of ids with the same text
    the one that is written so in the vocabulary keeps it; the others are called by their ids, and
    so is what stands for nothing.

    Args:
        codec: Whose ids.
    """

    def __init__(self, codec: Codec) -> None:
        self._bytes = [_bytes_of(codec, token_id) for token_id in range(len(codec))]
        tokens = [_token(codec, token_id) for token_id in range(len(codec))]
        self.byte_ids = frozenset(
            number
            for number, (token, data) in enumerate(zip(tokens, self._bytes, strict=True))
            if len(data) == 1 and token == f"<|byte{data[0]}|>"
        )
        names = [
            f"bytes:\\x{data[0]:02x}" if number in self.byte_ids else data.decode(errors="replace")
            for number, data in enumerate(self._bytes)
        ]
        count = Counter(names)
        self._names = [
            name
            if name and (count[name] == 1 or name == token) and not name.startswith("token_id:")
            else f"token_id:{number}"
            for number, (name, token) in enumerate(zip(names, tokens, strict=True))
        ]

    def name(self, token_id: int, *, as_id: bool = False) -> str:
        """The name of an id.

        Args:
            token_id: An id.
            as_id: `token_id:123`, whatever it stands for.

        Returns:
            A name that no other id has.
        """
        return f"token_id:{token_id}" if as_id else self._names[token_id]

    def bytes(self, token_id: int) -> list[int]:
        """The UTF-8 bytes that an id stands for."""
        return list(self._bytes[token_id])

    def text(self, token_id: int) -> str:
        """The text of an id alone; none for a byte of a character."""
        return "" if token_id in self.byte_ids else self._bytes[token_id].decode()


def completion_logprobs(
    tokens: Sequence[OutputToken], names: TokenNames, *, as_ids: bool
) -> dict[str, Any]:
    """The `logprobs` of a completion: four lists of one length.

    Args:
        tokens: With log-probabilities; the first of a prompt has none.
        names: Of the ids.
        as_ids: Whether tokens are called `token_id:123`.

    Returns:
        Names, log-probabilities, alternatives (the token itself always among them), and where each
        token begins in the choice's text, in characters.
    """
    return {
        "text_offset": [token.start for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "tokens": [names.name(token.id, as_id=as_ids) for token in tokens],
        "top_logprobs": [_alternatives(token, names, as_ids) for token in tokens],
    }


def chat_logprobs(
    tokens: Sequence[OutputToken], names: TokenNames, num_top: int, *, as_ids: bool
) -> dict[str, Any]:
    """The `logprobs` of a chat's choice.

    Args:
        tokens: With log-probabilities.
        names: Of the ids.
        num_top: How many alternatives of each.
        as_ids: Whether tokens are called `token_id:123`.

    Returns:
        OpenAI's object.
    """

    def entry(token_id: int, logprob: float | None) -> dict[str, Any]:
        return {
            "token": names.name(token_id, as_id=as_ids),
            "logprob": _finite(logprob),
            "bytes": names.bytes(token_id),
        }

    return {
        "content": [
            {
                **entry(token.id, token.logprob),
                "top_logprobs": [entry(*each) for each in token.top[:num_top]],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def token_details(
    tokens: Sequence[OutputToken], names: TokenNames, text: str
) -> list[dict[str, Any]]:
    """Everything that is known of tokens; their texts, joined, are what they stand for in `text`.

    Args:
        tokens: One after the other; all bytes of a character are among them.
        names: Of the ids.
        text: The choice's whole text so far.

    Returns:
        An object for each token.
    """
    return [
        {
            "id": token.id,
            "text": text[token.start : token.end] if _completes(token, after, names) else "",
            "bytes": names.bytes(token.id),
            "logprob": _finite(token.logprob),
            "start": token.start,
            "end": token.end,
            "top": [
                {
                    "id": token_id,
                    "text": names.text(token_id),
                    "bytes": names.bytes(token_id),
                    "logprob": _finite(logprob),
                }
                for token_id, logprob in token.top
            ],
        }
        for token, after in zip(tokens, [*tokens[1:], None], strict=False)
    ]


def _completes(token: OutputToken, after: OutputToken | None, names: TokenNames) -> bool:
    """Whether no later byte stands for the same character."""
    return (
        after is None
        or token.id not in names.byte_ids
        or after.id not in names.byte_ids
        or (after.start, after.end) != (token.start, token.end)
    )


def _alternatives(
    token: OutputToken, names: TokenNames, as_ids: bool
) -> dict[str, float | None] | None:
    if token.logprob is None:
        return None
    found = {token.id: token.logprob, **dict(token.top)}
    ranked = sorted(found.items(), key=lambda each: -each[1])
    return {names.name(token_id, as_id=as_ids): _finite(value) for token_id, value in ranked}


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(float(logprob), _LOWEST)


def _bytes_of(codec: Codec, token_id: int) -> bytes:
    try:
        return codec.decode_single_token_bytes(token_id)
    except ValueError:  # an id that the added tokens skip
        return b""


def _token(codec: Codec, token_id: int) -> str:
    try:
        return codec.id_to_token(token_id)
    except ValueError:
        return ""
