"""The page's files: small, from nowhere else, safe under its own policy, in two languages."""

from __future__ import annotations

import re
from pathlib import Path

import gpt_neox_japanese
from tests.server.serving import Process

PAGE = Path(gpt_neox_japanese.__file__).parent / "server" / "page"
FILES = {
    file.relative_to(PAGE).as_posix(): file.read_text(encoding="utf-8")
    for file in sorted(PAGE.rglob("*"))
    if file.is_file()
}
SCRIPTS = "\n".join(text for name, text in FILES.items() if name.endswith(".js"))


def test_what_a_browser_fetches_is_under_60_kilobytes(process: Process) -> None:
    size = 0
    for name in FILES:
        answer = process.request("/" if name == "index.html" else f"/page/{name}")
        assert answer.status_code == 200, name
        size += answer.num_bytes_downloaded
    assert 10_000 < size < 60_000


def test_nothing_is_loaded_from_elsewhere() -> None:
    for name, text in FILES.items():
        addresses = re.findall(r"""["'(]((?:https?:)?//[^"')]*)""", text)
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, name


def test_addresses_are_relative() -> None:
    links = re.findall(r'(?:src|href)="([^"]*)"', FILES["index.html"])
    assert links
    assert all(link.removeprefix("page/") in FILES for link in links)
    assert not re.findall(r"""(?:fetch|json|send)\(["'`]/""", SCRIPTS)


def test_text_never_becomes_markup_or_code() -> None:
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in SCRIPTS
    assert not re.search(r"\s(?:style|on\w+)=", FILES["index.html"])
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style", FILES["index.html"])


def test_everything_that_is_said_is_there_in_english() -> None:
    dictionary = FILES["i18n.js"].partition("ENGLISH = {")[2].partition("\n};")[0]
    keys = set(re.findall(r'(?:^|, |\n)\s*(?:"([^"]+)"|([^\s",:{}]+)):', dictionary))
    known = {quoted or plain for quoted, plain in keys}
    said = re.findall(r'\bt\("([^"]+)"', SCRIPTS)
    said += re.findall(r"data-t(?: [^>]*)?>([^<]+)<", FILES["index.html"])
    said += re.findall(r'(?:aria-label|placeholder)="([^"]+)"', FILES["index.html"])
    japanese = {text for text in said if any("\u3040" <= letter <= "\u9fff" for letter in text)}
    assert len(japanese) > 50
    assert japanese <= known
