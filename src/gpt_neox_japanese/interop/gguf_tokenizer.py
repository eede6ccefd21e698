r"""A `Codec` as the tokens of a GGUF file, in llama.cpp's kind "rwkv": a trie, the longest match.

Whether the smallest id wins or the longest match is the same once everything is left out that can
never win (docs/decisions/interop/gguf.md has the proof). So the trie holds exactly the strings that
`Codec` encodes to one id:

- where that string is also what the id decodes to, it is the id's token;
- where it is not (a variant of a character, one of many emoji), it is the token of an extra id
  behind the vocabulary, which stands for the same embedding and is never written;
- where another id decodes to that string too, its token is the same in another spelling, earlier in
  the file: of tokens that match alike the last one counts;
- an id whose text is no such string (dead entries, tags) has it behind an invisible character that
  llama.cpp always cuts off first, so that no text matches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import product
from typing import NamedTuple

from gpt_neox_japanese.errors import VocabularyError
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.tokenizer.decoding import Decoder
from gpt_neox_japanese.tokenizer.encoding.normalization import DASHES, JOINER, SPACES
from gpt_neox_japanese.tokenizer.encoding.python_encoder import (
    LONGEST_PIECE,
    SYMBOL_CLASSES,
    byte_ids,
)

__all__ = ["GGUFTokens", "TokenType", "escape_token", "tokens_of", "trie_strings"]

# Characters that show nothing. One that stands in no form and no emoji becomes the mark of tokens
# that no text may match.
_MARKS = "\u2060\u2061\u2062\u2063\u2064\u200b"

_EMOJI_STYLE = "\ufe0f"

# A form or an emoji with more long vowels than this would have too many spellings.
_MAX_DASHES = 6

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\x00"}


# Behind a backslash these mean something else, and any other character itself.
_NOT_SLASHED = "tnrx\\"


class TokenType(IntEnum):
    """GGUF's types of tokens, as far as they are used here."""

    NORMAL = 1
    CONTROL = 3  # gives no text; a prompt's spelling of it is the id only where specials are parsed
    USER_DEFINED = 4  # found in a text before anything else


class GGUFTokens(NamedTuple):
    """The tokens of a GGUF file.

    Attributes:
        texts: The token of every id, those of extra ids last, escaped as llama.cpp reads them.
        types: The type of each.
        extra: What each extra id stands for: ids of the vocabulary.
    """

    texts: list[str]
    types: list[TokenType]
    extra: list[int]


def tokens_of(codec: Codec, *, unknown_id: int, stop_ids: Iterable[int]) -> GGUFTokens:
    """The tokens that make llama.cpp encode and decode as a codec does.

    Args:
        codec: The tokenizer.
        unknown_id: Stands for bytes without an id.
        stop_ids: Ids that end a text, and so give none.

    Returns:
        The tokens.

    Raises:
        VocabularyError: llama.cpp's tokenizer cannot be made to give the same ids.
    """
    _check(codec)
    strings = trie_strings(codec, unknown_id)
    mark = _free_mark(codec)
    decoder = Decoder(codec.vocabulary)
    control = {*codec.special_ids, *stop_ids}
    taken = {mark}  # what stands in the file already; llama.cpp takes no token twice
    texts, types = [], []
    again: dict[str, int] = {}
    for token_id in range(len(codec.vocabulary)):
        decoded = decoder.decode_token(token_id)
        data = decoded if isinstance(decoded, bytes) else decoded.encode()
        text, owner = escape_token(data), strings.get(data)
        if owner is None or token_id in control:
            text = _marked(mark, text, taken)
        elif owner != token_id:
            # Another id is what this text becomes. Of tokens that match alike the last one counts.
            if text in taken and text[0] not in _NOT_SLASHED:
                again["\\" + text] = owner
            other = _in_hexadecimal(data)
            is_free = other not in taken and (text not in taken or "\\" + text in again)
            text = other if is_free else _marked(mark, text, taken)
        taken.add(text)
        texts.append(text)
        types.append(TokenType.CONTROL if token_id in control else TokenType.NORMAL)

    extra = {escape_token(data): token_id for data, token_id in strings.items()}
    extra = {text: token_id for text, token_id in extra.items() if text not in taken} | again
    # The mark is a token of its own, so that it never reaches the trie with what follows.
    extra[mark] = strings[mark.encode()]
    texts += extra
    types += [TokenType.NORMAL] * len(extra)
    for text in (mark, *_overlapping_emoji(codec, strings)):
        types[texts.index(text)] = TokenType.USER_DEFINED
    return GGUFTokens(texts, types, list(extra.values()))


def _marked(mark: str, text: str, taken: set[str]) -> str:
    text = mark + text
    while text in taken:
        text = mark + text
    return text


def trie_strings(codec: Codec, unknown_id: int) -> dict[bytes, int]:
    """Every string that a codec encodes to one id, wherever it is the best that matches.

    Args:
        codec: The tokenizer.
        unknown_id: Stands for bytes without an id.

    Returns:
        UTF-8, or a single byte → id. Each of the 256 bytes is there: llama.cpp's tokenizer does not
        end where a byte begins a token and is none itself.
    """
    texts = list(dict.fromkeys(_spellings(_candidates(codec))))
    strings = dict(zip(_single_bytes(), byte_ids(codec.vocabulary.ids, unknown_id), strict=True))
    encoded = codec.encode_batch(texts)
    strings |= {t.encode(): ids[0] for t, ids in zip(texts, encoded, strict=True) if len(ids) == 1}
    return strings


def escape_token(data: bytes) -> str:
    r"""A token as llama.cpp's kind "rwkv" writes it: text as it is, other bytes as `\xNN`.

    Args:
        data: UTF-8, or bytes that are none.

    Returns:
        The token; it holds no NUL.
    """
    try:
        return "".join(_ESCAPES.get(character, character) for character in data.decode())
    except UnicodeDecodeError:
        return _in_hexadecimal(data)


def _in_hexadecimal(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


def _check(codec: Codec) -> None:
    """Refuse tokenizers that llama.cpp has no way to be equal to."""
    vocabulary = codec.vocabulary
    if codec.clean:
        raise VocabularyError(
            "tokenizer_config.json: do_clean_text is true, and llama.cpp replaces no URLs and"
            " dates; set it to false if texts need no cleaning"
        )
    for token_id, token in codec.added_tokens.tokens.items():
        if not token.special or vocabulary.ids.get(token.content) != token_id:
            raise VocabularyError(
                f"the added token {token.content!r:.60} (id {token_id}) is not in vocab.txt, and"
                " llama.cpp would find it in other places; convert the model as it was before"
            )
    for dash, written in DASHES.items():
        if written not in vocabulary.ids:
            raise VocabularyError(
                f"the vocabulary has no entry {written!r}, so {dash!r} is the bytes of"
                f" {written!r}, which llama.cpp cannot do; add a line {written!r}"
            )
    for text in (*vocabulary.ids, *vocabulary.emoji):
        if "\0" in text and text != "\0":
            raise VocabularyError(
                f"the entry {text!r:.60} holds U+0000, at which llama.cpp's tokens end; remove it"
            )
        if sum(map(text.count, DASHES.values())) > _MAX_DASHES:
            raise VocabularyError(
                f"the entry {text!r:.60} holds more than {_MAX_DASHES} long vowels, each of which"
                " may be written as three characters; remove it"
            )


def _candidates(codec: Codec) -> Iterator[str]:
    """What may be one id: no other text is."""
    yield from (form for form in codec.vocabulary.ids if len(form) <= LONGEST_PIECE)
    yield from map(chr, range(128))
    yield from ("\r\n", *SPACES, *DASHES)
    yield from (chr(c) for spans in SYMBOL_CLASSES.values() for span in spans for c in span)
    yield from _emoji(codec)


def _emoji(codec: Codec) -> Iterator[str]:
    for emoji in codec.vocabulary.emoji:
        yield emoji
        if not codec.legacy:
            yield from _styles(emoji)


def _styles(emoji: str) -> Iterator[str]:
    """An emoji with and without U+FE0F behind each of the emoji that are joined in it."""
    parts = emoji.replace(_EMOJI_STYLE, "").split(JOINER)
    yield from map(JOINER.join, product(*([part, part + _EMOJI_STYLE] for part in parts)))
    yield emoji + _EMOJI_STYLE


def _spellings(texts: Iterable[str]) -> Iterator[str]:
    """Texts with every dash that stands for a long vowel."""
    ways = {written: [written, *DASHES] for written in DASHES.values()}
    for text in texts:
        if ways.keys().isdisjoint(text):
            yield text
        else:
            yield from map("".join, product(*(ways.get(c, [c]) for c in text)))


def _single_bytes() -> Iterator[bytes]:
    return (bytes([byte]) for byte in range(256))


def _free_mark(codec: Codec) -> str:
    used = {c for text in (*codec.vocabulary.ids, *codec.vocabulary.emoji) for c in text}
    for mark in _MARKS:
        if mark not in used:
            return mark
    raise VocabularyError(
        f"every one of {', '.join(f'U+{ord(m):04X}' for m in _MARKS)} stands in the vocabulary;"
        " llama.cpp needs one of them to keep tags apart from texts: remove one"
    )


def _overlapping_emoji(codec: Codec, strings: dict[bytes, int]) -> Sequence[str]:
    """Emoji that begin within a longer form, as "1️⃣" does where "第1" is a form.

    Emoji are found before forms are, and a trie would take the form that begins earlier. llama.cpp
    finds tokens of type USER_DEFINED first.
    """
    tails: set[str] = set()
    for form in _spellings(form for form in codec.vocabulary.ids if len(form) <= LONGEST_PIECE):
        if form.encode() in strings:
            tails |= {form[start:] for start in range(1, len(form))}
    found = []
    for emoji in _spellings(_emoji(codec)):
        if emoji.encode() in strings and any(emoji[:n] in tails for n in range(1, len(emoji))):
            if escape_token(emoji.encode()) != emoji:
                raise VocabularyError(
                    f"the emoji {emoji!r:.60} begins where forms of the vocabulary end, and"
                    " llama.cpp cannot look for it first; remove it from emoji.json"
                )
            found.append(emoji)
    return found
