r"""llama.cpp's tokenizer of kind "rwkv", as its source describes it: what GGUF tokens become there.

A text is first cut at tokens of type USER_DEFINED, longer ones before shorter ones (and at those of
type CONTROL, where specials are parsed). What is left goes through a trie of bytes: at each place
the longest token that matches.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpt_neox_japanese.interop.gguf_tokenizer import GGUFTokens, TokenType

_ESCAPED = {"t": b"\t", "n": b"\n", "r": b"\r"}


class RwkvTokenizer:
    """Encodes and decodes with the tokens of a GGUF file."""

    def __init__(self, tokens: GGUFTokens) -> None:
        assert len(set(tokens.texts)) == len(tokens.texts), "llama.cpp aborts at equal tokens"
        assert not any("\0" in text for text in tokens.texts), "llama.cpp cuts tokens at NUL"
        self.pieces = [unescape(text) for text in tokens.texts]
        self.values = {piece: i for i, piece in enumerate(self.pieces)}
        self.prefixes = {piece[:n] for piece in self.pieces for n in range(1, len(piece) + 1)}
        assert all(bytes([b]) in self.values for b in range(256)), "llama.cpp would loop forever"
        by_size = sorted(
            (i for i, kind in enumerate(tokens.types) if kind != TokenType.NORMAL),
            key=lambda i: -len(tokens.texts[i].encode()),
        )
        self.first = [(tokens.texts[i].encode(), i, tokens.types[i]) for i in by_size]

    def encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        fragments: list[bytes | int] = [text.encode()]
        for mark, token_id, kind in self.first:
            if kind == TokenType.CONTROL and not parse_special:
                continue
            cut: list[bytes | int] = []
            for fragment in fragments:
                if isinstance(fragment, int):
                    cut.append(fragment)
                    continue
                head, *rest = fragment.split(mark)
                cut.append(head)
                for part in rest:
                    cut += [token_id, part]
            fragments = [fragment for fragment in cut if fragment != b""]
        ids: list[int] = []
        for fragment in fragments:
            ids += [fragment] if isinstance(fragment, int) else self._longest_matches(fragment)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")

    def _longest_matches(self, data: bytes) -> list[int]:
        ids = []
        position = 0
        while position < len(data):
            end = position + 1
            best = self.values[data[position:end]], end
            while data[position:end] in self.prefixes:
                if (token_id := self.values.get(data[position:end])) is not None:
                    best = token_id, end
                if end == len(data):
                    break
                end += 1
            token_id, position = best
            ids.append(token_id)
        return ids


def unescape(text: str) -> bytes:
    data = b""
    characters = iter(text)
    for character in characters:
        if character != "\\":
            data += character.encode()
        elif (kind := next(characters)) == "x":
            data += bytes.fromhex(next(characters) + next(characters))
        else:
            data += _ESCAPED.get(kind, kind.encode())
    return data
