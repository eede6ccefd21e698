"""Special tokens that a text spells out: which ones there are, and which may become their ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from contextlib import suppress
from functools import cached_property
from typing import Literal

from gpt_neox_japanese.checks import check_text, short_repr
from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.added_tokens import (
    AddedToken,
    AddedTokens,
    StringFinder,
    TokenFinder,
)
from gpt_neox_japanese.tokenizer.encoding.normalization import REPLACED
from gpt_neox_japanese.tokenizer.encoding.python_encoder import LONGEST_PIECE
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["NO_TOKENS", "AllowedSpecial", "DisallowedSpecial", "SpecialTokens"]

AllowedSpecial = Literal["all"] | Set[str]
"""Special tokens that become their ids where a text spells them out."""

DisallowedSpecial = Literal["all"] | Collection[str]
"""Special tokens that are an error where a text spells them out; "all" are those not allowed."""

NO_TOKENS: frozenset[str] = frozenset()


class SpecialTokens:
    """The tags of a vocabulary and the special ones among its added tokens. Threads may share it.

    A tag is a form of three characters or more that begins with `<`, such as `<|endoftext|>`.

    Args:
        vocabulary: Has the tags.
        added: Tokens added to it.
        foreign: id → text of the added tokens that the vocabulary does not hold under this id.

    Attributes:
        ordinary: Finds the added tokens that are not special; every text is searched for them.
        all: Finds all added tokens. Tags are found by the encoder itself.
    """

    def __init__(
        self, vocabulary: Vocabulary, added: AddedTokens, foreign: Mapping[int, str]
    ) -> None:
        self._vocabulary = vocabulary
        self._foreign = foreign
        tokens = {content: (i, added.tokens[i]) for content, i in added.ids.items()}
        self.ordinary = TokenFinder(
            {c: token for c, token in tokens.items() if not token[1].special}
        )
        self.all = TokenFinder(tokens)
        self._finders: dict[frozenset[str], TokenFinder] = {}
        self._disallowed: dict[frozenset[str], StringFinder] = {}

    def __getstate__(self) -> dict[str, object]:
        """Nothing that is made again when it is needed; states are alike whatever was encoded."""
        kept = ("_vocabulary", "_foreign", "ordinary", "all")
        return {**{name: vars(self)[name] for name in kept}, "_finders": {}, "_disallowed": {}}

    @cached_property
    def names(self) -> frozenset[str]:
        """How all of them are written."""
        added = (content for content, (_, token) in self.all.tokens.items() if token.special)
        return frozenset({*self._tags, *added})

    def finder(self, allowed: Collection[str]) -> TokenFinder:
        """What finds the ordinary added tokens and some special ones.

        Args:
            allowed: How the special ones are written.

        Returns:
            The finder; the same tokens get the same one.

        Raises:
            TokenizationError: One of them is no special token.
        """
        allowed = _as_set("allowed_special", allowed)
        if allowed not in self._finders:
            if unknown := sorted(map(short_repr, allowed - self.names)):
                raise TokenizationError(
                    f"allowed_special: {unknown[0]} is no special token; name some of"
                    " special_tokens_set"
                )
            tags = {
                tag: (self._tags[tag], AddedToken(tag, special=True))
                for tag in sorted(allowed & self._tags.keys())
            }
            added = {
                content: token
                for content, token in self.all.tokens.items()
                if content in allowed or not token[1].special
            }
            self._finders[allowed] = TokenFinder({**tags, **added})
        return self._finders[allowed]

    def refuse(
        self, texts: Iterable[str], disallowed: DisallowedSpecial, allowed: AllowedSpecial
    ) -> None:
        """Raise where a text spells out a special token that it must not hold.

        Args:
            texts: Any strings.
            disallowed: Special tokens; "all" for every one that is not allowed.
            allowed: Special tokens, or "all".

        Raises:
            TokenizationError: A text spells one; the message says which, and where.
        """
        if disallowed == "all":
            if allowed == "all":
                return
            disallowed = self.names - _as_set("allowed_special", allowed)
        disallowed = _as_set("disallowed_special", disallowed) - {""}
        if disallowed not in self._disallowed:
            for token in disallowed:
                check_text("one of disallowed_special", token, TokenizationError)
            self._disallowed[disallowed] = StringFinder(sorted(disallowed))
        for text in texts:
            for start, end in self._disallowed[disallowed].find(text)[:1]:
                token = text[start:end]
                raise TokenizationError(
                    f"the text spells the special token {token!r:.60} at character {start}; pass"
                    f" allowed_special={{{token!r:.60}}} to make it an id, or disallowed_special=()"
                    " to take it as text"
                )

    @cached_property
    def _tags(self) -> Mapping[str, int]:
        return {
            form: i
            for form, i in self._vocabulary.ids.items()
            if form[0] == "<"
            and len(form) >= LONGEST_PIECE
            and REPLACED.keys().isdisjoint(form)
            and self._foreign.get(i, form) == form
        }


def _as_set(name: str, tokens: object) -> frozenset[str]:
    if isinstance(tokens, frozenset):
        return tokens
    if not isinstance(tokens, str) and isinstance(tokens, Collection):
        with suppress(TypeError):  # a list in a list, say
            return frozenset(tokens)
    raise TokenizationError(
        f"{name} is {short_repr(tokens)}; give 'all' or a set of special tokens"
    )
