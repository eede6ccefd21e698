from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt_neox_japanese.tokenizer.encoding.cleaning import find_cleanable

# What transformers 4.37.2 cleans with: one pattern after the other rewrites the text. They are
# exponential, so they see only short strings or tame ones here.
_WEEKDAYS = r"\(日\)|\(月\)|\(火\)|\(水\)|\(木\)|\(金\)|\(土\)|㈰|㈪|㈫|㈬|㈭|㈮|㈯"
_TIME = rf"(\d{{1,2}}|:|\d{{1,2}}時|\d{{1,2}}分|{_WEEKDAYS})*"
_NUMBER = r"(0|[1-9]\d*|[1-9]\d{0,2}(,\d{3})+)*"
_ORACLE = {
    r"(https?|ftp)(:\/\/[-_\.!~*\'()a-zA-Z0-9;\/?:\@&=\+$,%#]+)": "<URL>",
    r"[A-Za-z0-9\._+]*@[\-_0-9A-Za-z]+(\.[A-Za-z]+)*": "<EMAIL>",
    r"[\(]{0,1}[0-9]{2,4}[\)\-\(]{0,1}[0-9]{2,4}[\)\-]{0,1}[0-9]{3,4}": "<TEL>",
    r"([12]\d{3}[/\-年])*(0?[1-9]|1[0-2])[/\-月]((0?[1-9]|[12][0-9]|3[01])日?)*" + _TIME: "<DATE>",
    r"(明治|大正|昭和|平成|令和|㍾|㍽|㍼|㍻|\u32ff)\d{1,2}年(0?[1-9]|1[0-2])月"
    r"(0?[1-9]|[12][0-9]|3[01])日" + _TIME: "<DATE>",
    rf"({_NUMBER}億)*({_NUMBER}万)*({_NUMBER}千)*{_NUMBER}"
    r"(千円|万円|千万円|円|千ドル|万ドル|千万ドル|ドル|千ユーロ|万ユーロ|千万ユーロ|ユーロ)+"
    r"(\(税込\)|\(税抜\)|\+tax)*": "<PRICE>",
}


def _reference(text: str) -> str:
    for pattern, tag in _ORACLE.items():
        text = re.sub(pattern, tag, text)
    text = re.sub("[\u2500-\u259f]", "<BLOCK>", text)
    return re.sub("(<BLOCK>)+", "<BLOCK>", text)


def _rewrite(text: str, *, legacy: bool) -> str:
    pieces: list[str] = []
    done = 0
    for start, end, tag in find_cleanable(text, legacy=legacy):
        pieces += text[done:start], tag
        done = end
    return "".join([*pieces, text[done:]])


def _strings(pieces: list[str]) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pieces), max_size=14).map(lambda drawn: "".join(drawn)[:14])


_HOSTILE_PIECES = {
    "url": ["http", "https", "ftp", "s", ":", "//", "://", "a", "#", "あ", "\0", "@"],
    "email": [*"a@@._+-1あ", "@a.", "\0"],
    "tel": [*"0123--()あ\0"],
    "date": [*"0129/-年月日:٣", "1999/", "2000/", "12月", "㈰", "(土)", "10", "時", "分"],
    "date chains": ["2000/", "1991-", "12", "1", "0", "/", "月", "日", "1/"],
    "era": ["昭和", "㍻", "64年", "1月", "7日", "1", "0", "年", "月", "日"],
    "price": [*"01239,,億万千円３٣", "ドル"],
    "price groups": ["1", "0", ",000", ",12", "1,234", "999", "３", "億", "万", "千", "円", "+tax"],
    "block": ["<BLOCK>", "<BLOCK", "BLOCK>", "<", ">", "─", "▀", "\0"],
}


@pytest.mark.parametrize("pieces", _HOSTILE_PIECES.values(), ids=_HOSTILE_PIECES)
@given(data=st.data())
@settings(max_examples=200)
def test_legacy_cleans_like_the_original_patterns(pieces: list[str], data: st.DataObject) -> None:
    text = data.draw(_strings(pieces))
    for written in ("<SP>", "<|emoji12|>"):  # what stands where we are given a barrier
        cleaned = _rewrite(text, legacy=True).replace("\0", written)
        assert cleaned == _reference(text.replace("\0", written))


@pytest.mark.parametrize(
    "text",
    [
        "詳しくはhttps://example.com/a?b=c#dを見て、お問い合わせはinfo@example.co.jpまで。",
        "電話03-1234-5678、(03)1234-5678、または0120444444へ。",
        "2020年5月31日(日)10:30開演、料金は1,980円(税込)です。",
        "昭和64年1月7日から㍻元年1月8日、令和1年5月1日まで。",
        "売上は3億5千万円、利益は1,200万ドル、借入は5千ユーロ+taxでした。",
        "アイドルは1/2の確率で千円をもらう。2万3千4百円。３０００円。",
        "12,345,678円1234,567円1000,234円1,234567円00001,234円1,23,456円1,234３円1３４,567円",
        "1999/12/31、1999-12-31、12月24日㈭、1,2,3円、001円、10円20円。",
        "┏━━┓\0<BLOCK>▀<BLOCK><BLOCK>\0<BLOCK>\0猫<URL>@<EMAIL>1<DATE>円",
    ],
)
def test_legacy_cleans_sentences_like_the_original_patterns(text: str) -> None:
    assert _rewrite(text, legacy=True) == _reference(text)


def test_legacy_leaves_a_single_typed_block_tag_to_the_vocabulary() -> None:
    assert find_cleanable("<BLOCK>", legacy=True) == []
    assert find_cleanable("<BLOCK>─", legacy=True) == [(0, 8, "<BLOCK>")]


@given(_strings([piece for pieces in _HOSTILE_PIECES.values() for piece in pieces]), st.booleans())
@settings(max_examples=500)
def test_spans_are_sorted_and_separate_and_hold_no_barrier(text: str, legacy: bool) -> None:
    done = 0
    for start, end, _ in find_cleanable(text, legacy=legacy):
        assert done <= start < end <= len(text)
        assert "\0" not in text[start:end]
        done = end


# Repeated, most of these keep a search that goes back or begins again busy for minutes to ages.
_HOSTILE_UNITS = [
    "http://",
    "https",
    "a",
    "a@",
    "@a.",
    "a.",
    "@a-b.1",
    "0",
    "0-",
    "(0",
    "+1-",
    "1/",
    "1999/",
    "2000/",
    "2000年",
    "12345",
    "1999/1",
    "1月1日",
    "1/1:",
    "昭和64年",
    "1",
    "1,",
    "1,111",
    "111,",
    ",111",
    "10億",
    "1万",
    "千",
    "万億",
    "３",
    "(税込)",
    "円(税込)",
    "<BLOCK>",
    "<BLOCK",
    "─",
    ")",
    "\0",
]
_LENGTH = 200_000


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "corrected"])
@pytest.mark.parametrize("unit", _HOSTILE_UNITS)
def test_a_hostile_text_of_any_length_is_cleaned(unit: str, legacy: bool) -> None:
    repeated = unit * (_LENGTH // len(unit))
    text = f"{repeated}あ{repeated}円あ9円"  # once nothing follows, once what a price ends with
    assert find_cleanable(text, legacy=legacy)[-1] == (len(text) - 2, len(text), "<PRICE>")


@pytest.mark.parametrize("closing", [".", ")", ".)", "')"])
def test_closing_punctuation_of_any_length_is_no_part_of_a_url(closing: str) -> None:
    text = "http://a" + closing * (_LENGTH // len(closing))
    assert find_cleanable(text, legacy=False) == [(0, 8, "<URL>")]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        # URL
        ("見よhttps://example.com/a_(b)?c=d#e。", "見よ<URL>。"),
        ("「http://example.com」、ftp://example.com/", "「<URL>」、<URL>"),
        ("(see http://example.com/a.)", "(see <URL>.)"),
        ("http://example.comを見る", "<URL>を見る"),
        # EMAIL
        ("宛先は、a.b+c@example.co.jp。", "宛先は、<EMAIL>。"),
        ("a@b.jp,c-d@e.jp.", "<EMAIL>,<EMAIL>."),
        # TEL
        ("03-1234-5678", "<TEL>"),
        ("(03)1234-5678か03(1234)5678", "<TEL>か<TEL>"),
        ("０９０－１２３４－５６７８", "<TEL>"),
        ("0120ー444ー444", "<TEL>"),  # what normalization makes of a minus sign
        ("+81-3-1234-5678", "<TEL>"),
        ("+819012345678", "<TEL>"),
        # DATE
        ("2020年5月", "<DATE>"),
        ("2020年12月31日(日)10:30から", "<DATE>から"),
        ("5月10日午後3時30分に", "<DATE>に"),
        ("２０２０年５月３１日", "<DATE>"),
        ("2020/5/31、2020-05-31、2020.5.31", "<DATE>、<DATE>、<DATE>"),
        ("2020-05-31T10:30:00.25+09:00", "<DATE>"),
        ("2020/12", "<DATE>"),
        ("昭和64年1月7日", "<DATE>"),
        ("㍻31年4月30日から令和元年5月1日水曜日", "<DATE>から<DATE>"),
        ("5/1(土)", "<DATE>"),
        ("5月1日㈮10時半", "<DATE>"),
        ("5月1日8時間", "<DATE>8時間"),
        # PRICE
        ("1,980円(税込)", "<PRICE>"),
        ("１，９８０円（税抜）", "<PRICE>"),
        ("3億5千万円", "<PRICE>"),
        ("1.5兆ドル、30万ユーロ", "<PRICE>、<PRICE>"),
        ("2万3千4百円", "<PRICE>"),
        ("1,2円", "1,<PRICE>"),
        ("100円玉", "<PRICE>玉"),
        # BLOCK
        ("┏━┓\0▀", "<BLOCK>\0<BLOCK>"),
    ],
)
def test_corrected_rules_find(text: str, cleaned: str) -> None:
    assert _rewrite(text, legacy=False) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "アイドル",
        "円とドルとユーロ",
        "千円",
        "100ドルフィン",
        "100%",
        "1/2",
        "5月",
        "12時30分",
        "懲役10年3月",
        "2020/13",
        "2020/5/100",
        "令和元年",
        "3月32日",
        "1234567",
        "0312345678",
        "123-456-7890",
        "0123-4567-8901-2345",
        "ISBN978-4-00-310101-8",
        "1+2345678901",
        "@abeja",
        "a@b",
        "http://",
        "http://。",
        "<BLOCK><BLOCK>",
    ],
)
def test_corrected_rules_leave_alone(text: str) -> None:
    assert find_cleanable(text, legacy=False) == []
