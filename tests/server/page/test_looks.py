"""What is seen: ruby, colours, languages, small screens; and that text stays text."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.server.page.conftest import BEGINNING, Desk


def test_markup_stays_text(desk: Desk) -> None:
    evil = "<script>window.evil = 1</script><img src=x onerror='window.evil=1'>《</rt>》"
    desk.page.fill("#title", evil)
    desk.write(evil, length=4)
    desk.page.click("#open-tree")
    desk.visible_tokens.first.click()
    desk.page.keyboard.press("Escape")
    desk.page.click("#open-settings")
    desk.page.click("#open-tokens")
    desk.page.fill("#to-split", evil)
    desk.page.locator("#pieces .piece").first.wait_for()
    assert desk.page.evaluate("window.evil") is None
    assert desk.page.locator("script:not([src]), img").count() == 0


def test_ruby_is_set_beside_its_characters(desk: Desk) -> None:
    desk.editor.focus()
    desk.page.keyboard.insert_text("美しい漢字《かんじ》と｜ふりがな《ルビ》。《》")
    desk.page.keyboard.press("Escape")
    rubies = desk.page.locator("#reading ruby").evaluate_all(
        """all => all.map(ruby => [...ruby.childNodes].filter(each => !each.hidden)
            .map(each => each.textContent))"""
    )
    assert ["".join(parts[:-1]) for parts in rubies] == ["漢字", "ふりがな"]
    assert [parts[-1] for parts in rubies] == ["かんじ", "ルビ"]
    desk.page.click("#mode")
    assert desk.text == "美しい漢字《かんじ》と｜ふりがな《ルビ》。《》"


def test_a_click_on_ones_own_text_goes_back_to_editing_there(desk: Desk) -> None:
    desk.write(length=5)
    box = desk.page.locator("#reading .m").first.bounding_box()
    assert box
    desk.page.mouse.click(box["x"] + 19 * 3 + 2, box["y"] + 5)
    assert desk.page.evaluate("document.activeElement.id") == "editor"
    assert desk.editor.evaluate("e => e.selectionStart") == 3


def test_short_numbers_stand_upright_in_vertical_text(desk: Desk) -> None:
    desk.page.click("#direction")
    desk.editor.focus()
    desk.page.keyboard.insert_text("昭和12年、1234人、5つ")
    desk.page.keyboard.press("Escape")
    upright = desk.page.locator(".tcy")
    assert upright.all_inner_texts() == ["12", "5"]
    assert upright.first.evaluate("e => getComputedStyle(e).textCombineUpright") == "all"


def test_surprise_has_five_steps_that_are_underlined_too(desk: Desk) -> None:
    desk.write(length=120)
    desk.page.click("#colour")
    looks = {
        step: desk.page.locator(f"#reading .s{step}").first.evaluate(
            "e => getComputedStyle(e).textDecorationStyle + getComputedStyle(e).textDecorationLine"
        )
        for step in range(1, 5)
    }
    assert len(set(looks.values())) == 4
    assert all(look.endswith("underline") for look in looks.values())
    pieces = [p for v in desk.stored()["versions"] for p in v["pieces"] if p["by"] == "model"]
    for piece, token in zip(pieces, desk.tokens.all(), strict=True):
        likely = math.exp(piece["logprob"]) >= 0.5
        assert ("s0" in (token.get_attribute("class") or "").split()) == likely


def test_the_page_speaks_english_by_a_switch(desk: Desk) -> None:
    assert desk.page.evaluate("document.documentElement.lang") == "ja"
    desk.page.click("#open-settings")
    desk.page.select_option("#language", "en")
    assert desk.page.evaluate("document.documentElement.lang") == "en"
    visible = desk.page.evaluate("document.body.innerText")
    lines = {line.strip() for line in visible.splitlines()}
    left = {line for line in lines if any("\u3040" <= letter <= "\u9fff" for letter in line)}
    assert left <= {"言語 / Language", "日本語"}
    desk.page.keyboard.press("Escape")
    assert desk.page.inner_text("#continue") == "Continue"
    desk.page.reload()
    assert desk.page.inner_text("#continue") == "Continue"


def test_nothing_is_wider_than_a_phone(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(viewport={"width": 360, "height": 640}, has_touch=True)
    desk.write(length=20)

    def fits() -> bool:
        return bool(desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))

    assert fits()
    for button in ("continue", "rewrite", "three", "undo", "mode", "open-settings", "direction"):
        box = desk.page.locator(f"#{button}").bounding_box()
        assert box, button
        assert box["x"] >= 0, button
        assert box["x"] + box["width"] <= 360, button
    desk.visible_tokens.nth(3).tap()
    box = desk.page.locator("#branches").bounding_box()
    assert box
    assert box["width"] <= 360
    desk.page.keyboard.press("Escape")
    desk.page.click("#direction")
    assert fits()
    desk.page.click("#open-settings")
    assert fits()
    desk.page.select_option("#language", "en")
    desk.page.keyboard.press("Escape")
    assert fits()


def test_the_theme_follows_the_system(new_desk: Callable[..., Desk]) -> None:
    for scheme, theme in (("dark", "dark"), ("light", "paper")):
        desk = new_desk(color_scheme=scheme)
        assert desk.page.evaluate("document.documentElement.dataset.theme") == theme


def test_squared_paper_has_twenty_squares_a_line(desk: Desk) -> None:
    desk.page.click("#open-settings")
    desk.page.check("#grid")
    desk.page.keyboard.press("Escape")
    desk.editor.focus()
    desk.page.keyboard.insert_text("あ" * 45)
    desk.page.keyboard.press("Escape")
    span = desk.page.locator("#reading .m")
    assert span.evaluate("e => e.getClientRects().length") == 3
    assert desk.page.inner_text("#count") == "45 字・0.1 枚"


def test_tokens_are_shown_with_the_bytes_of_one_character_framed(desk: Desk) -> None:
    desk.page.click("#open-settings")
    desk.page.click("#open-tokens")
    desk.page.fill("#to-split", "猫①鱻")
    desk.page.locator("#pieces .character").wait_for()
    frames = desk.page.locator("#pieces .character")
    assert frames.count() == 1
    assert frames.locator(".piece b").all_inner_texts() == ["e9", "b1", "bb"]
    assert desk.page.locator("#pieces .folded b").all_inner_texts() == ["① → １"]
    ids = desk.page.locator("#pieces .piece code:first-of-type").all_inner_texts()
    desk.page.fill("#to-join", " ".join(ids))
    desk.page.locator("#joined", has_text="猫").wait_for()
    desk.page.fill("#to-join", "99999999")
    desk.page.locator("#joined", has_text="99999999").wait_for()


def test_the_last_request_can_be_copied(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk(permissions=["clipboard-read", "clipboard-write"])
    desk.write("雨が'降る", length=3)
    copied = {}
    for kind in ("curl", "python"):
        desk.page.click("#open-settings")
        desk.page.click(f"#copy-{kind}")
        copied[kind] = desk.page.evaluate("navigator.clipboard.readText()")
    assert copied["curl"].startswith("curl http://127.0.0.1:")
    assert "雨が'\\''降る" in copied["curl"]
    compile(copied["python"], "copied.py", "exec")
    assert "max_tokens=3" in copied["python"]
    assert BEGINNING not in copied["python"]


def test_a_request_that_cannot_be_copied_is_shown(desk: Desk) -> None:
    desk.page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    desk.write("雨が", length=3)  # pages over plain HTTP have no clipboard
    desk.page.click("#open-settings")
    desk.page.click("#copy-curl")
    desk.notice.get_by_text("curl http://127.0.0.1:").wait_for()
    desk.page.locator("#settings").wait_for(state="hidden")


def test_the_tokens_of_the_end_begin_with_a_whole_character(desk: Desk) -> None:
    desk.editor.fill("\U00020bb7" * 200 + "あ")
    desk.page.click("#open-settings")
    desk.page.click("#open-tokens")
    assert desk.page.input_value("#to-split") == "\U00020bb7" * 199 + "あ"
    desk.page.locator("#pieces .character").first.wait_for()
