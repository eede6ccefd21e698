"""Writing and continuing: keys, input methods, scrolling, stopping."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.page.conftest import BEGINNING, Desk
from tests.server.serving import Process


def test_control_enter_continues_the_text_in_place(desk: Desk) -> None:
    written = desk.write(length=12)
    assert written
    assert desk.tokens.count() == 12
    shown = desk.page.evaluate(
        "[...document.querySelectorAll('.line')].map(e => e.textContent).join('')"
    )
    assert shown == BEGINNING + written


def test_enter_is_a_new_line(desk: Desk) -> None:
    desk.editor.focus()
    desk.page.keyboard.type("春")
    desk.page.keyboard.press("Enter")
    desk.page.keyboard.type("夏")
    assert desk.text == "春\n夏"
    assert desk.page.is_visible("#continue")


def test_enter_that_ends_a_composition_does_nothing_else(desk: Desk) -> None:
    page = desk.page
    desk.editor.focus()
    page.keyboard.insert_text("猫")
    page.evaluate(
        """() => {
            const editor = document.querySelector('#editor');
            window.sets = 0;
            const own = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value');
            Object.defineProperty(editor, 'value', {
                get() { return own.get.call(this) },
                set(text) { window.sets++; own.set.call(this, text) },
            });
        }"""
    )
    session = page.context.new_cdp_session(page)
    session.send(
        "Input.imeSetComposition", {"text": "がい", "selectionStart": 2, "selectionEnd": 2}
    )
    for key in ("Enter", "Escape"):  # while composing, and as Safari sends it: keyCode 229
        page.evaluate(
            """key => document.querySelector('#editor').dispatchEvent(new KeyboardEvent('keydown',
                {key, ctrlKey: true, bubbles: true, isComposing: true}))""",
            key,
        )
        page.evaluate(
            """key => document.querySelector('#editor').dispatchEvent(new KeyboardEvent('keydown',
                {key, ctrlKey: true, bubbles: true, keyCode: 229}))""",
            key,
        )
    assert page.is_visible("#continue")
    assert page.evaluate("document.activeElement.id") == "editor"
    session.send("Input.insertText", {"text": "がいる"})
    assert desk.text == "猫がいる"
    assert page.evaluate("window.sets") == 0, "a text that is being composed was overwritten"
    assert page.locator("#count").inner_text().startswith("4 字")


def test_a_composition_may_begin_in_the_reading_layer(desk: Desk) -> None:
    written = desk.write()
    desk.editor.focus()
    session = desk.page.context.new_cdp_session(desk.page)
    session.send("Input.imeSetComposition", {"text": "ね", "selectionStart": 1, "selectionEnd": 1})
    session.send("Input.insertText", {"text": "猫"})
    assert desk.text == BEGINNING + written + "猫"


def test_what_was_typed_is_sent_with_the_ids_that_the_model_chose(desk: Desk) -> None:
    desk.write(length=6)
    desk.page.keyboard.insert_text("そして")
    with desk.page.expect_request("**/v1/completions") as request:
        desk.page.keyboard.press("Control+Enter")
    desk.wait()
    pieces = [piece for version in desk.stored()["versions"] for piece in version["pieces"]]
    chosen = [piece["id"] for piece in pieces if piece["by"] == "model"][:6]
    prompt = request.value.post_data_json["prompt"]
    assert any(prompt[i : i + 6] == chosen for i in range(len(prompt)))


def test_a_run_after_a_stop_string_goes_on_behind_it(desk: Desk, process: Process) -> None:
    desk.page.click("#open-settings")
    desk.page.fill("#stops", "。\n、\nの\nは\nが\nた")
    desk.page.keyboard.press("Escape")
    desk.write(length=80)
    text = desk.text
    assert text[-1] in "。、のはがた"
    assert "モデル" not in desk.page.locator("#state").inner_text()
    with desk.page.expect_request("**/v1/completions") as request:
        desk.page.click("#continue")
    desk.wait()
    assert len(desk.text) > len(text)
    shown = process.request("/detokenize", {"tokens": request.value.post_data_json["prompt"]})
    written = process.request("/tokenize", {"prompt": text})
    assert shown.json()["prompt"] == written.json()["normalized"]


def test_the_newest_line_stays_in_view(new_desk: Callable[..., Desk]) -> None:
    for vertical in (False, True):
        desk = new_desk(viewport={"width": 600, "height": 400})
        if vertical:
            desk.page.click("#direction")
        desk.write(BEGINNING * 4, length=150)
        inside = desk.page.evaluate(
            """() => {
                const view = document.querySelector('#scroll').getBoundingClientRect();
                const line = document.querySelector('.line:last-child .t:last-child');
                const box = line.getBoundingClientRect();
                return box.left >= view.left && box.right <= view.right
                    && box.top >= view.top && box.bottom <= view.bottom;
            }"""
        )
        assert inside, f"vertical: {vertical}"


def test_the_wheel_turns_sideways_in_vertical_text(desk: Desk) -> None:
    desk.page.click("#direction")
    desk.editor.focus()
    desk.page.keyboard.insert_text((BEGINNING + "\n") * 30)
    place = "document.querySelector('#scroll').scrollLeft"
    assert desk.page.evaluate(place) < 0, "the end, where the caret is, lies to the left"
    desk.page.evaluate("document.querySelector('#scroll').scrollLeft = 0")
    desk.page.mouse.move(500, 300)
    desk.page.mouse.wheel(0, 300)
    desk.until(f"{place} === -300")


def test_what_the_textarea_undid_can_be_done_again(desk: Desk) -> None:
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+z")
    assert desk.text == ""
    for key in ("Control+y", "Control+Shift+z"):
        desk.page.keyboard.press(key)
        assert desk.text == "雨が", key
        desk.page.keyboard.press("Control+z")
        assert desk.text == "", key


def test_undo_is_the_trees_in_a_work_that_was_just_opened(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "work.txt"
    file.write_text("猫がいる。", encoding="utf-8")
    desk.page.set_input_files("#file", file)
    desk.until("document.querySelector('#editor').value === '猫がいる。'")
    desk.editor.press("Control+z")
    assert desk.text == ""
    desk.page.keyboard.press("Control+y")
    assert desk.text == "猫がいる。"


def test_stopping_keeps_the_text_and_frees_the_slot(desk: Desk, process: Process) -> None:
    desk.set("長さ", 250)
    desk.editor.focus()
    desk.page.keyboard.insert_text(BEGINNING)
    desk.page.keyboard.press("Control+Enter")
    desk.wait_for_tokens(3)
    desk.page.keyboard.press("Escape")
    desk.wait()
    assert len(desk.text) > len(BEGINNING)
    assert desk.tokens.count() < 250
    deadline = time.monotonic() + 10
    while process.metric("neox_ja_running") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.metric("neox_ja_running") == 0


def test_everything_can_be_done_by_keyboard(desk: Desk) -> None:
    page, press = desk.page, desk.page.keyboard.press
    page.keyboard.insert_text("雨が")  # a new work is ready to be written in
    press("Control+Enter")
    desk.wait()
    first = desk.text
    press("ArrowUp")  # to the last token
    for _ in range(5):
        press("ArrowLeft")
    press("Enter")
    desk.alternatives.first.wait_for()
    press("1")
    desk.wait()
    assert desk.text != first
    press("ArrowLeft")
    desk.until("document.querySelector('#editor').value === " + json.dumps(first))
    press("Control+Shift+Enter")
    desk.wait()
    page.locator("#drafts").wait_for()
    press("Enter")
    page.locator("#drafts").wait_for(state="hidden")
    assert desk.text.startswith(first)
    assert desk.text != first
    press("Control+z")
    assert desk.text == first
    reached = set()
    for _ in range(20):
        press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    wanted = {"open-tree", "title", "direction", "colour", "open-settings", "reading", "editor"}
    assert wanted | {"continue", "rewrite", "three", "undo", "mode"} <= reached
    page.locator("#reading").focus()
    page.keyboard.type("z")
    assert desk.text == first + "z"


def test_whole_sentences_are_said_not_tokens(desk: Desk) -> None:
    desk.page.evaluate(
        """() => {
            window.said = [];
            const live = document.querySelector('[aria-live]');
            new MutationObserver(() => window.said.push(live.textContent))
                .observe(live, {childList: true});
        }"""
    )
    written = desk.write(length=80)
    desk.page.wait_for_timeout(100)
    said = desk.page.evaluate("window.said")
    assert "".join(said) == written
    assert all(part[-1] in "。！？\n" for part in said[:-1])


def test_keys_find_the_sheet_after_a_reload(desk: Desk) -> None:
    written = desk.write(length=3)
    desk.stored()
    desk.open()
    desk.page.keyboard.press("Control+Enter")
    desk.wait_for_tokens(4)
    desk.wait()
    assert desk.text.startswith(BEGINNING + written)


@pytest.mark.parametrize("focus", ["#open-settings", "#direction", "#title"])
def test_the_keys_that_continue_work_wherever_the_focus_is(desk: Desk, focus: str) -> None:
    desk.set("長さ", 3)
    desk.editor.fill(BEGINNING)
    desk.page.focus(focus)
    with desk.page.expect_request("**/v1/completions"):
        desk.page.keyboard.press("Control+Enter")
    desk.wait()
    assert desk.text.startswith(BEGINNING)


def test_the_keys_that_continue_do_nothing_behind_an_open_dialog(desk: Desk) -> None:
    desk.editor.fill(BEGINNING)
    desk.page.click("#open-settings")
    desk.page.keyboard.press("Control+Enter")
    desk.page.wait_for_timeout(300)
    assert desk.text == BEGINNING
