"""Tokens beyond `vocab.txt`: where a text spells them, and what they mean.

`add_tokens` and `add_special_tokens` of transformers give a model tokens of its own. An ordinary
added token becomes its id wherever it is written. A special one, as `<|endoftext|>` is, becomes its
id only where the caller allows it: in text from strangers it is text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from gpt_neox_japanese.errors import VocabularyError

__all__ = [
    "AddedToken",
    "AddedTokens",
    "Segment",
    "StringFinder",
    "TokenFinder",
    "TokenFlags",
    "check_free",
]

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\w")


class TokenFlags(Protocol):
    """An added token: ours, or that of `tokenizers`, whose flags have the same meaning."""

    @property
    def content(self) -> str:
        """How it is written."""

    @property
    def special(self) -> bool:
        """Whether it is a special token rather than a word."""

    @property
    def lstrip(self) -> bool:
        """Whether whitespace before it belongs to it."""

    @property
    def rstrip(self) -> bool:
        """Whether whitespace after it belongs to it."""

    @property
    def single_word(self) -> bool:
        """Whether it is only found where no word goes on before or after it."""


class AddedToken(NamedTuple):
    """See `TokenFlags`."""

    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class Segment(NamedTuple):
    """A part of a text: the characters from `start` to `end`, and the added token they are."""

    start: int
    end: int
    id: int | None


class AddedTokens:
    """The added tokens of a vocabulary. Never changes, so anyone may hold on to it.

    Args:
        tokens: id → token. Of two with one spelling the larger id is found.
        special_ids: Ids of special tokens besides those whose token says so.
        names: `pad_token` and its like, where a file says them → how the token is written; None
            where there shall be none.

    Attributes:
        tokens: id → token, in order of ids.
        names: As above.
        special_ids: The ids of all special tokens.
        ids: How a token is written → its id; tokens that are written as nothing are left out.
    """

    def __init__(
        self,
        tokens: Mapping[int, TokenFlags],
        special_ids: Iterable[int] = (),
        names: Mapping[str, str | None] | None = None,
    ) -> None:
        self.tokens: Mapping[int, TokenFlags] = dict(sorted(tokens.items()))
        self.names: Mapping[str, str | None] = dict(names or {})
        special = (i for i, token in self.tokens.items() if token.special)
        self.special_ids = frozenset({*special_ids, *special})
        self.ids: Mapping[str, int] = {t.content: i for i, t in self.tokens.items() if t.content}


class TokenFinder:
    """Finds tokens where texts spell them. Never changes.

    Args:
        tokens: How a token is written, which is not empty → its id and its flags.

    Attributes:
        tokens: As above; where it is empty, nothing is ever found.
        may_cross_lines: Whether a token can stand in two lines, or take the break between them.
    """

    def __init__(self, tokens: Mapping[str, tuple[int, TokenFlags]]) -> None:
        self.tokens = tokens
        self.may_cross_lines = any(
            "\n" in content or token.lstrip or token.rstrip
            for content, (_, token) in tokens.items()
        )
        self._strings = StringFinder(tokens)

    def may_occur(self, texts: Sequence[str]) -> bool:
        """Whether one of some texts may spell a token; False is certain.

        Args:
            texts: Any strings.

        Returns:
            Whether a search is worth while.
        """
        return bool(self.tokens) and self._strings.may_find("".join(texts))

    def split(self, text: str) -> list[Segment]:
        """Cut a text at the tokens that it spells.

        Where several match, the leftmost is taken, and of those the longest, as in `tokenizers`.
        The time is linear in the text, whatever the tokens.

        Args:
            text: Any string.

        Returns:
            The tokens and what lies between them, in order; empty where there is none.
        """
        segments: list[Segment] = []
        done = 0
        for start, end in self._strings.find(text):
            token_id, token = self.tokens[text[start:end]]
            if start < done or (token.single_word and _touches_word(text, start, end)):
                continue
            if token.lstrip:
                start = done + len(text[done:start].rstrip())
            if token.rstrip and (spaces := _SPACE.match(text, end)):
                end = spaces.end()
            if done < start:
                segments.append(Segment(done, start, None))
            segments.append(Segment(start, end, token_id))
            done = end
        if segments and done < len(text):
            segments.append(Segment(done, len(text), None))
        return segments


class StringFinder:
    """Finds strings in a text, leftmost first and longest first, in time linear in the text.

    The automaton of Aho and Corasick, for the strings spelled backwards, reads the text from its
    end. The longest string that it has just read is then the longest that begins at that place.

    Args:
        strings: None of them empty.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._edges: list[dict[str, int]] = [{}]
        self._lengths = [0]  # of the longest string that ends, backwards, in a state
        for string in strings:
            state = 0
            for character in reversed(string):
                state = self._edges[state].setdefault(character, len(self._edges))
                if state == len(self._edges):
                    self._edges.append({})
                    self._lengths.append(0)
            self._lengths[state] = len(string)
        self._fallbacks = [0] * len(self._edges)
        queue = deque(self._edges[0].values())
        while queue:
            state = queue.popleft()
            for character, following in self._edges[state].items():
                self._fallbacks[following] = self._step(self._fallbacks[state], character)
                self._lengths[following] = (
                    self._lengths[following] or self._lengths[self._fallbacks[following]]
                )
                queue.append(following)
        ends = "".join(map(re.escape, self._edges[0]))
        self._ends = re.compile(f"[{ends}]" if ends else r"(?!)")

    def may_find(self, text: str) -> bool:
        """Whether any of the strings may be there; False is certain.

        Args:
            text: Any string.

        Returns:
            Whether a search is worth while.
        """
        return self._ends.search(text) is not None

    def find(self, text: str) -> list[tuple[int, int]]:
        """Where strings stand.

        Args:
            text: Any string.

        Returns:
            `(start, end)` of each, none of them inside another, in order.
        """
        if not self.may_find(text):
            return []
        found: list[tuple[int, int]] = []
        backwards = text[::-1]
        state = position = 0
        while match := self._ends.search(backwards, position):  # nothing else leads on from state 0
            position = match.start()
            while position < len(text):
                state = self._step(state, backwards[position])
                position += 1
                if not state:
                    break
                if length := self._lengths[state]:
                    start = len(text) - position
                    found.append((start, start + length))
        done = 0
        apart: list[tuple[int, int]] = []
        for start, end in reversed(found):
            if start >= done:
                apart.append((start, end))
                done = end
        return apart

    def _step(self, state: int, character: str) -> int:
        edges = self._edges
        while state and character not in edges[state]:
            state = self._fallbacks[state]
        return edges[state].get(character, 0)


def check_free(content: str, token_id: int, added: Mapping[int, TokenFlags]) -> None:
    """Refuse a token whose id another one took.

    Args:
        content: How the token is written.
        token_id: The id that it has in the vocabulary, or would get.
        added: id → token of those there are.

    Raises:
        VocabularyError: The id is that of an added token that is written otherwise.
    """
    holder = added.get(token_id)
    if holder is not None and holder.content != content:
        raise VocabularyError(
            f"{content!r:.60} has id {token_id}, which the added token {holder.content!r:.60} took;"
            f" name {holder.content!r:.60} in its place, or give one of them an id of its own in"
            " added_tokens_decoder of tokenizer_config.json"
        )


def _touches_word(text: str, start: int, end: int) -> bool:
    """Whether a word goes on before `start` or after `end`."""
    return bool((start and _WORD.match(text, start - 1)) or _WORD.match(text, end))
