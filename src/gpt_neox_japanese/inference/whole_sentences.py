"""A text that ends where a sentence does: what follows the last end is held back, then dropped."""

from __future__ import annotations

import re

__all__ = ["WholeSentences"]

_PAIRS = {
    "」": "「",
    "』": "『",
    "）": "（",
    ")": "(",
    "】": "【",
    "〉": "〈",
    "》": "《",
    "〕": "〔",
}
_CLOSING = {opening: closing for closing, opening in _PAIRS.items()}
_CLOSERS = re.escape("".join(_PAIRS))
# Marks that end a sentence and brackets that close behind them; or the end of a line, unless it
# says that more comes: 彼は、 and then a line in 「」.
_END = re.compile(rf"[。！？!?][。！？!?{_CLOSERS}]*|(?<=[^\n、])(?=\n)")
_MORE = re.compile(rf"[。！？!?{_CLOSERS}]*")


class WholeSentences:
    """Lets text pass sentence by sentence.

    A sentence ends with 。, ！ or ？, brackets that close behind it included, or with its line. If
    the last one stands within brackets that its line opened, they are closed.

    Args:
        before: The text that goes on: brackets that it leaves open are open here too.

    Example:
        >>> text = WholeSentences()
        >>> text.feed("「雨だ。風も")
        '「雨だ。'
        >>> text.finish(is_broken_off=True)
        ('', '」')
    """

    def __init__(self, before: str = "") -> None:
        self._held = ""
        self._open: list[str] = []  # brackets that the text so far leaves open in its last line
        self._found = False
        self._follow(before)

    def feed(self, text: str) -> str:
        """What is certain to belong to whole sentences, now that `text` is known.

        Args:
            text: What follows the text so far.

        Returns:
            That text, without what was returned before.
        """
        self._held += text
        end = 0
        if self._found and (more := _MORE.match(self._held)):
            end = more.end()
        for match in _END.finditer(self._held):
            end = match.end()
        self._found |= end > 0
        return self._release(end)

    def finish(self, *, is_broken_off: bool) -> tuple[str, str]:
        """What comes last, when no text follows.

        Args:
            is_broken_off: Whether the text ended for want of tokens, not by itself. Then the rest
                is dropped; unless no sentence has ended at all, and the rest is all there is.

        Returns:
            Text that was held back, and brackets that close what is open.
        """
        if not (is_broken_off and self._found):
            return self._release(len(self._held)), ""
        self._held = ""
        return "", "".join(_CLOSING[bracket] for bracket in reversed(self._open))

    def _release(self, end: int) -> str:
        ready, self._held = self._held[:end], self._held[end:]
        self._follow(ready)
        return ready

    def _follow(self, text: str) -> None:
        """Take in which brackets a text opens and closes."""
        for character in text:
            if character == "\n":
                self._open.clear()
            elif character in _CLOSING:
                self._open.append(character)
            elif _PAIRS.get(character) in self._open:
                while self._open.pop() != _PAIRS[character]:
                    pass
