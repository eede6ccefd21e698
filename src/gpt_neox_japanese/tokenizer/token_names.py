"""What the ids of a vocabulary are called, and which id a name means."""

from __future__ import annotations

from gpt_neox_japanese.tokenizer.decoding import Decoder
from gpt_neox_japanese.tokenizer.vocabulary import Vocabulary

__all__ = ["TokenNames"]


class TokenNames:
    """Two names for every id of a vocabulary: what it decodes to, and how `vocab.txt` writes it.

    Structured output (xgrammar, llguidance) reads the names of a vocabulary as the text that ids
    decode to, and `<0xE3>`, Llama's name for it, as a byte. So a space is called " ", not `<SP>`.
    Where two ids decode to the same text, that which the text is encoded as bears it, and the
    other is called by number: `<|id26391|>`.

    Attributes:
        vocabulary: What is named.
        decoded: id → text or byte that it decodes to; those that bear it as a name come first.
        names: id → that text, or `<0xE3>`; no two ids have the same.
        forms: id → the first form of its line that leads back to it (`<SP>`, `<|byte227|>`); by
            number where all of them belong to later lines.
        id_of_form: The same, form → id.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        decoder = Decoder(vocabulary)
        self.vocabulary = vocabulary
        decoded = [decoder.decode_token(i) for i in range(len(vocabulary))]
        self.forms = vocabulary.names
        self.id_of_form = {form: i for i, form in enumerate(self.forms)}
        self._id_of_name: dict[str, int] = {}
        ids = vocabulary.ids
        for i, token in enumerate(decoded):
            name = f"<0x{token[0]:02X}>" if isinstance(token, bytes) else token
            if ids.get(name, i) != i or name in self._id_of_name:
                name = f"<|id{i}|>"
            self._id_of_name[name] = i
        self.names = list(self._id_of_name)
        # The Rust tokenizer, too, gives a text as a name to the first id that has it.
        bearers_first = sorted(range(len(decoded)), key=lambda i: self.names[i] == f"<|id{i}|>")
        self.decoded = {i: decoded[i] for i in bearers_first}

    def __reduce__(self) -> tuple[object, ...]:
        return TokenNames, (self.vocabulary,)

    def find(self, name: str) -> int | None:
        """The id of a name, or of any form of `vocab.txt`.

        Args:
            name: A name.

        Returns:
            The id; None if there is none.
        """
        for ids in (self._id_of_name, self.id_of_form, self.vocabulary.ids):
            if name in ids:
                return ids[name]
        return None

    def form_of(self, name: str) -> str:
        """A name as `vocab.txt` writes it: `<BR>` for a line break.

        Args:
            name: Any string.

        Returns:
            The form of the id that has the name; the string itself if none has.
        """
        token_id = self.find(name)
        return name if token_id is None else self.forms[token_id]
