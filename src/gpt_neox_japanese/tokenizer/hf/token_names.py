"""All ids of a tokenizer by their names, and how tokens are added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenizers import AddedToken

from gpt_neox_japanese.errors import TokenizationError
from gpt_neox_japanese.tokenizer.added_tokens import check_free
from gpt_neox_japanese.tokenizer.token_names import TokenNames

__all__ = ["TokenTable"]


class TokenTable:
    """All ids of a tokenizer: those of its vocabulary, and the tokens added to them.

    Never changes: copies of a tokenizer share it until a token is added to one of them.

    Args:
        names: Of the vocabulary.
        added: id → token. Special tokens of the vocabulary are among them.

    Attributes:
        names: As above.
        added: As above, in order of ids.
        added_ids: text of an added token → id.
        foreign: id → text of the added tokens that `vocab.txt` does not hold under this id.
    """

    def __init__(self, names: TokenNames, added: Mapping[int, AddedToken]) -> None:
        self.names = names
        self.added = dict(sorted(added.items()))
        self.added_ids = {token.content: i for i, token in self.added.items()}
        self.foreign = {
            i: token.content
            for i, token in self.added.items()
            if i >= len(names.forms) or names.forms[i] != token.content
        }

    def __len__(self) -> int:
        return max(len(self.names.forms), 1 + max(self.added, default=-1))

    def vocab(self) -> dict[str, int]:
        """One name for each id → the id."""
        names = {name: i for i, name in enumerate(self.names.names) if i not in self.foreign}
        return names | {name: i for i, name in self.foreign.items()}

    def decoded(self) -> dict[int, str | bytes]:
        """What each id decodes to: text, or one byte of a character."""
        return self.names.decoded | self.foreign

    def name(self, token_id: int) -> str:
        """What an id is called.

        Args:
            token_id: An id.

        Returns:
            Its name.

        Raises:
            TokenizationError: No such id.
        """
        if token_id in self.foreign:
            return self.foreign[token_id]
        if not 0 <= token_id < len(self.names.names):
            raise TokenizationError(
                f"id {token_id} is outside the vocabulary; ids are 0 to {len(self) - 1}"
            )
        return self.names.names[token_id]

    def form(self, token_id: int) -> str:
        """An added token, or how `vocab.txt` writes an id.

        Args:
            token_id: An id.

        Returns:
            The form.
        """
        return self.foreign.get(token_id) or self.names.forms[token_id]

    def written(self, token_id: int, surface: str) -> str:
        """The token as a text writes it: 慶應 stays 慶應, though its id is called 慶応.

        Args:
            token_id: An id.
            surface: The characters of the text that it stands for.

        Returns:
            These, or the form of the id where they are none.
        """
        if token_id not in self.added and self.names.vocabulary.ids.get(surface) == token_id:
            return surface
        return self.form(token_id)

    def find(self, token: str | AddedToken | None) -> int | None:
        """The id that a token has under any of its names; None if there is no such token.

        Args:
            token: A name, or an added token; None for a mark that is not set.
        """
        if token is None:
            return None
        name = str(token)
        return self.added_ids[name] if name in self.added_ids else self.names.find(name)

    def special_ids(self) -> set[int]:
        """The added tokens that are special."""
        return {i for i, token in self.added.items() if token.special}

    def plus(self, new_tokens: Iterable[str | AddedToken | None], *, special: bool) -> TokenTable:
        """With `new_tokens`, which keep the ids they have or get the next ones.

        One of the vocabulary is added as `vocab.txt` writes it, whatever name it is given by.

        Args:
            new_tokens: Empty ones and None are passed over.
            special: Whether all of them are special; an `AddedToken` may also be so by itself.

        Returns:
            A table of its own.

        Raises:
            TokenizationError: A value is no token.
            VocabularyError: One has an id in the vocabulary that another added token took.
        """
        added = dict(self.added)
        ids = self.names.id_of_form | self.added_ids
        next_id = len(self)
        for token in new_tokens:
            if token is None:
                continue
            if not isinstance(token, str | AddedToken):
                raise TokenizationError(f"{token!r:.60} is no token; pass a str or an AddedToken")
            content = str(token)
            if not content:
                continue
            if content not in ids and (form := self.names.form_of(content)) != content:
                if not (special or getattr(token, "special", False)):
                    continue  # it has its id, as what it decodes to has in texts
                content = form
            if content not in ids:
                ids[content] = next_id
                next_id += 1
            check_free(content, ids[content], added)
            if isinstance(token, str):
                known = added.get(ids[content])
                token = (
                    known if known and not special else AddedToken(content, normalized=not special)
                )
            flags = {**token.__getstate__(), "special": special or token.special}
            added[ids[content]] = AddedToken(**{**flags, "content": content})
        return TokenTable(self.names, added)
