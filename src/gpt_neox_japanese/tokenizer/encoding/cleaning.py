"""Which parts of a text `do_clean_text=True` replaces by a tag.

Two rule sets. The legacy one finds exactly what the regular expressions of transformers 4.37.2
find, because published weights were trained on their output. The corrected one is for our own
vocabularies:

    tag       legacy                             corrected
    --------  ---------------------------------  -----------------------------------------------
    <URL>     ASCII after http:, https:, ftp:    the same, without closing punctuation
    <EMAIL>   anything@word, even @word          local part, @, and a domain with a dot
    <TEL>     7 to 12 digits, even plain ones    10 or 11 digits that begin with 0, with hyphens
                                                 or parentheses; or + and 10 to 15 digits
    <DATE>    month and separator: 1/2, 5月      year and month (2020年5月, 2020/5, 昭和64年1月),
                                                 month and day (5月1日), or 5/1(土); then the
                                                 day, the day of the week, the time of day
    <PRICE>   a currency word, with or without   number and 円, ドル or ユーロ, unless a longer
              amount: アイドル                   katakana word goes on; then (税込) and the like
    <BLOCK>   a run of box drawing, in which a   a run of box drawing
              typed "<BLOCK>" may take part

The corrected rules read full-width digits and signs like ASCII ones. Numerals in kanji are words.

Everything here takes time linear in the text, whatever the text. A regular expression is used only
where it cannot do otherwise: what it matches is bounded in length, or nothing after its last loop
can fail, so that it never goes back, and where it has read the next search does not read again.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator

__all__ = ["find_cleanable"]

_Finder = Callable[[str], Iterator[tuple[int, int]]]

# Stands for characters that are taken already. No rule matches it.
_BARRIER = "\0"


def find_cleanable(text: str, *, legacy: bool) -> list[tuple[int, int, str]]:
    """Find what cleaning replaces.

    Args:
        text: A text whose spaces, breaks and emoji are U+0000 already.
        legacy: Find what transformers finds, faults included; otherwise use the corrected rules.

    Returns:
        `(start, end, tag)` for `text[start:end]`, sorted, without overlaps.
    """
    found: list[tuple[int, int, str]] = []
    for tag, find in (_LEGACY_RULES if legacy else _CORRECTED_RULES).items():
        spans = list(find(text))
        found += [(start, end, tag) for start, end in spans]
        # Transformers writes the tag itself before it looks for the next kind, and tags where we
        # are given U+0000. That is the same: no rule but the last reads "<" or ">", so no match
        # reaches into a tag, and nothing inside a tag ("URL", "|emoji12|") is a match of its own.
        # The last rule reads "<BLOCK>", which no rule before it writes.
        text = _hide(text, spans)
    return sorted(found)


def _hide(text: str, spans: list[tuple[int, int]]) -> str:
    pieces: list[str] = []
    done = 0
    for start, end in spans:
        pieces += text[done:start], _BARRIER * (end - start)
        done = end
    pieces.append(text[done:])
    return "".join(pieces)


def _matches(pattern: str) -> _Finder:
    """The finder of a pattern that is linear as it stands."""
    compiled = re.compile(pattern, re.VERBOSE)
    return lambda text: (match.span() for match in compiled.finditer(text))


_URL_CHARACTER = r"[-_.!~*'()a-zA-Z0-9;/?:@&=+$,%#]"
_LOCAL_PART = string.ascii_letters + string.digits + "._+"


def _addresses(at_domain: str, local: str, *, bare: bool) -> _Finder:
    """The finder of e-mail addresses.

    A search for local parts would read a long word without "@" once from each of its characters.
    So the "@" is found first, and the local part is what can be read backwards from there.

    Args:
        at_domain: Pattern of "@" and the domain. It holds one "@", so matches share no characters.
        local: All characters of a local part.
        bare: Whether an empty local part will do.
    """
    pattern = re.compile(at_domain)

    def find(text: str) -> Iterator[tuple[int, int]]:
        done = 0
        for match in pattern.finditer(text):
            at, end = match.span()
            start = done + len(text[done:at].rstrip(local))
            if bare or start < at:
                yield start, end
            done = end

    return find


# Legacy rules. `\d` is any decimal digit of Unicode and [0-9] an ASCII one, as in the originals.

# Where a date may begin: at a year, of which any number may follow each other, or at a month. No
# place begins both, so from each place there is at most one way to a month.
_LEGACY_DATE_HEAD = re.compile(
    r"(?= (?P<year> [12]\d{3}[-/年] ) | (?P<month> (?:0?[1-9]|1[0-2])[-/月] ) )", re.VERBOSE
)
# What may follow the month. The originals have two-digit days, and 時 and 分 after a number, too.
# But a shorter alternative stands before them and is never given back, for all that follows is
# optional: of "10日" the 1 is taken as a day and the 0 as a number.
_LEGACY_DATE_TAIL = re.compile(
    r"(?: 0?[1-9]日? )* (?: [\d:] | \([日月火水木金土]\) | [㈪-㈰] )*", re.VERBOSE
)


def _legacy_dates(text: str) -> Iterator[tuple[int, int]]:
    """Years, month, rest.

    Read from the left, a chain of years without a month would be read again from each of its years.
    From the right, each year need only know whether the next one leads to a month. The original
    rule for dates with an era needs no code. It asks for a month and 月, and when its turn comes no
    month and 月 are left: they are what this rule looks for.
    """
    month_ends: dict[int, int] = {}  # place where a date can begin → end of its month
    for head in reversed(list(_LEGACY_DATE_HEAD.finditer(text))):
        if head["month"]:
            month_ends[head.start()] = head.end("month")
        elif head.end("year") in month_ends:
            month_ends[head.start()] = month_ends[head.end("year")]
    done = 0
    for start, month_end in reversed(month_ends.items()):
        if start >= done:
            tail = _LEGACY_DATE_TAIL.match(text, month_end)
            done = tail.end() if tail else month_end
            yield start, done


_LEGACY_CURRENCY = re.compile(
    r"(?: 円 | ドル | ユーロ ) (?: (?:千万|[千万])? (?: 円 | ドル | ユーロ ) )*"
    r"(?: \(税込\) | \(税抜\) | \+tax )*",
    re.VERBOSE,
)
_LEGACY_UNIT_RANK = {"千": 1, "万": 2, "億": 3}


def _legacy_prices(text: str) -> Iterator[tuple[int, int]]:
    """Every currency word has an amount before it, if an empty one; find where that begins.

    No amount reads over a currency word, so the words can be taken one by one.
    """
    done = 0
    for currency in _LEGACY_CURRENCY.finditer(text):
        start = _legacy_amount_start(text, done, currency.start())
        done = currency.end()
        yield start, done


def _legacy_amount_start(text: str, first: int, end: int) -> int:
    r"""The least `start >= first` from which `text[start:end]` is an amount.

    An amount is `(N*億)* (N*万)* (N*千)* N* (千|万|千万)?`, where a number N is `0`, `[1-9]\d*` or
    `[1-9]\d{0,2}(,\d{3})+`. We go backwards and note every place where an amount begins.
    """
    if text.endswith("万", first, end):
        end -= 1  # The last 万 need not stand in order. Nor need 千, but it always does.
    begins = {end}
    groups: set[int] = set()  # commas of ",ddd" that an amount or another such comma follows
    comma = -1  # the last comma passed
    number_may_end = True  # whether an amount begins among the digits at hand or right after them
    rank = 0  # of the last unit passed
    for place in range(end - 1, first - 1, -1):
        character = text[place]
        if character in _LEGACY_UNIT_RANK:
            if place + 1 not in begins or _LEGACY_UNIT_RANK[character] < rank:
                break  # an amount from further left would be one from here, too
            rank = _LEGACY_UNIT_RANK[character]
            begins.add(place)
            number_may_end = True
        elif character == ",":
            after = place + 4
            if text[place + 1 : after].isdecimal() and (after in begins or after in groups):
                groups.add(place)
            number_may_end, comma = False, place
        elif not character.isdecimal():
            break
        elif (character == "0" and place + 1 in begins) or (
            character in "123456789"
            and (number_may_end or (comma in groups and comma <= place + 3))
        ):
            begins.add(place)
            number_may_end = True
    return min(begins)


def _legacy_blocks(text: str) -> Iterator[tuple[int, int]]:
    """Runs of box drawing, of which a tag in the text may be part. One tag alone stays as it is."""
    # Possessive: what could be given back would be remembered for every character of a run.
    runs = re.finditer("(?:<BLOCK>|[\u2500-\u259f]++)++", text)
    return (run.span() for run in runs if run[0] != "<BLOCK>")


_LEGACY_RULES: dict[str, _Finder] = {
    "<URL>": _matches(rf"(?: https? | ftp ) :// {_URL_CHARACTER}+"),
    "<EMAIL>": _addresses(r"@[-_0-9A-Za-z]+(?:\.[A-Za-z]+)*", _LOCAL_PART, bare=True),
    "<TEL>": _matches(r"\(? [0-9]{2,4} [-()]? [0-9]{2,4} [-)]? [0-9]{3,4}"),
    "<DATE>": _legacy_dates,
    "<PRICE>": _legacy_prices,
    "<BLOCK>": _legacy_blocks,
}


# Corrected rules. D is a digit, H a hyphen; normalization writes a minus sign as ー.

_D = "[0-9０-９]"
_H = "[-－‐ー]"
_OPEN, _CLOSE = "[(（]", "[)）]"

_URL = _matches(rf"(?: https? | ftp ) :// [a-zA-Z0-9] {_URL_CHARACTER}*")


def _urls(text: str) -> Iterator[tuple[int, int]]:
    """URLs without the punctuation of the sentence around them."""
    for start, end in _URL(text):
        unopened = text.count(")", start, end) - text.count("(", start, end)
        while text[end - 1] in ".,:;!?'" or (text[end - 1] == ")" and unopened > 0):
            unopened -= text[end - 1] == ")"
            end -= 1
        yield start, end


# From each place no more than 15 digits are read.
_TEL = rf"""
    (?<! {_D} )
    (?:
        (?= (?: [-－‐ー()（）]{{0,2}} {_D} ){{10,11}} (?! {_H}? {_D} ) )
        (?:
            [0０] {_D}{{1,4}} {_H} {_D}{{1,4}} {_H}
          | {_OPEN} [0０] {_D}{{1,4}} {_CLOSE} {_D}{{1,4}} {_H}
          | [0０] {_D}{{1,4}} {_OPEN} {_D}{{1,4}} {_CLOSE}
        ) {_D}{{3,4}}
      | [+＋] [1-9１-９] (?: [-－‐ー()（）]{{0,2}} {_D} ){{9,14}}
    )
    (?! {_H}? {_D} )"""

_YEAR = f"[12１２]{_D}{{3}}"
_ERA = "(?: 明治 | 大正 | 昭和 | 平成 | 令和 | [㍾㍽㍼㍻㋿] )"
_MONTH = "(?: [0０]?[1-9１-９] | [1１][0-2０-２] )"
_DAY = f"(?: [0０]?[1-9１-９] | [12１２]{_D} | [3３][01０１] )"
_IN_PARENTHESES = f"{_OPEN} [日月火水木金土] (?:曜日?)? (?: ・?祝 )? {_CLOSE}"
_DATE = rf"""
    (?<! {_D} )
    (?:
        (?: {_YEAR} | {_ERA} (?: 元 | {_D}{{1,2}} ) ) 年 {_MONTH} 月 (?: {_DAY} 日 )?
      | {_MONTH} 月 {_DAY} 日
      | {_YEAR} (?: (?P<sign>[-./／．－]) {_MONTH} (?P=sign) {_DAY} | [-/／－] {_MONTH} )
        (?! [-./／．－]? {_D} )
      | {_MONTH} [/／] {_DAY} (?= {_IN_PARENTHESES} )
    )
    (?: {_IN_PARENTHESES} | [㈪-㈰] | [日月火水木金土]曜日? )?
    (?:
        (?: 午[前後] | T )? {_D}{{1,2}}
        (?:
            時 (?!間) (?: 半 | {_D}{{1,2}} 分 (?: {_D}{{1,2}} 秒 )? )?
          | [:：] {_D}{{2}} (?: [:：] {_D}{{2}} (?: \.{_D}{{1,9}} )? )?
            (?: Z | [-+]{_D}{{2}}:?{_D}{{2}} )?
        )
    )?"""

# An amount is taken even if no currency follows, so none of its digits is read as a new beginning.
_NUMBER = rf"(?: (?: {_D}{{1,3}} (?: [,，]{_D}{{3}} )+ (?!{_D}) | {_D}+ ) (?: [.．]{_D}+ )? )"
_PRICE = re.compile(
    rf"""
    {_NUMBER} (?: [十百千万億兆] {_NUMBER}? )*
    (?P<currency>
        (?: 円 | (?: ドル | ユーロ ) (?![ァ-ヺー]) )
        (?: {_OPEN} 税[込抜別] {_CLOSE} | \+tax )?
    )?""",
    re.VERBOSE,
)


def _prices(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in _PRICE.finditer(text) if match["currency"])


_CORRECTED_RULES: dict[str, _Finder] = {
    "<URL>": _urls,
    "<EMAIL>": _addresses(r"@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}", _LOCAL_PART + "%-", bare=False),
    "<TEL>": _matches(_TEL),
    "<DATE>": _matches(_DATE),
    "<PRICE>": _prices,
    "<BLOCK>": _matches("[\u2500-\u259f]+"),
}
