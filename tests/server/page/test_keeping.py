"""Works are kept in the browser, exported and imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.server.page.conftest import BEGINNING, Desk


def test_a_work_is_there_again_after_a_reload(desk: Desk) -> None:
    desk.page.fill("#title", "停車場")
    written = desk.write(length=5)
    desk.stored()
    desk.open()
    assert desk.text == BEGINNING + written
    assert desk.page.input_value("#title") == "停車場"
    assert desk.tokens.count() == 5


def test_leaving_asks_first(desk: Desk) -> None:
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨")
    asked = []
    desk.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    desk.page.close(run_before_unload=True)
    desk.page.wait_for_event("close") if not desk.page.is_closed() else None
    assert asked == ["beforeunload"]


def test_what_is_exported_can_be_imported(desk: Desk, tmp_path: Path) -> None:
    written = desk.write(length=5)
    files = {}
    for kind in ("txt", "json"):
        desk.page.click("#open-settings")
        with desk.page.expect_download() as download:
            desk.page.click(f"#export-{kind}")
        files[kind] = tmp_path / f"work.{kind}"
        download.value.save_as(files[kind])
        desk.page.keyboard.press("Escape")
    assert files["txt"].read_text(encoding="utf-8") == BEGINNING + written
    for kind, tokens in (("txt", 0), ("json", 5)):
        desk.page.click("#open-settings")
        desk.page.click("#new")
        assert desk.text == ""
        desk.page.set_input_files("#file", files[kind])
        desk.until("document.querySelector('#editor').value !== ''")
        assert desk.text == BEGINNING + written
        assert desk.tokens.count() == tokens
    desk.page.click("#open-settings")
    assert desk.page.locator("#works li").count() == 3


def test_a_file_that_is_no_work_is_told(desk: Desk, tmp_path: Path) -> None:
    start = {"id": 0, "parent": None, "made": "start", "from": [0, 0], "to": None, "pieces": []}
    work = {
        "format": "neox-ja-story-1",
        "title": "",
        "unread": 0,
        "current": 0,
        "versions": [start],
    }
    one = {**start, "id": 1, "parent": 0, "pieces": [{"by": "me", "text": "雨"}]}
    token = {"by": "model", "text": "雨", "id": 7, "bytes": [1], "top": [{"text": "雪"}]}
    bad = [
        "[1, 2",
        "{}",
        json.dumps({**work, "current": 7}),
        json.dumps({**work, "versions": [{**start, "pieces": [{"text": 1}]}]}),
        json.dumps({**work, "versions": [start, {**start, "id": 1, "parent": 2}]}),
        json.dumps({**work, "versions": [start, {**start, "id": 1, "parent": 0, "from": [3, 1]}]}),
        json.dumps({**work, "versions": [start, {**start, "id": 1, "parent": 0, "from": [-1, 0]}]}),
        json.dumps({**work, "versions": [start, {**one, "from": [1, 0], "to": [0, 0]}]}),
        json.dumps({**work, "versions": [{**start, "parent": 1}, one]}),
        json.dumps({**work, "versions": [start, {**one, "unread": 1}]}),  # no more than there is
        json.dumps({**work, "versions": [start, {**one, "pieces": [{"text": "雨", "id": 7}]}]}),
        json.dumps({**work, "versions": [start, {**one, "pieces": [token]}]}),
    ]
    for number, text in enumerate(bad):
        file = tmp_path / f"{number}.json"
        file.write_text(text, encoding="utf-8")
        desk.page.set_input_files("#file", file)
        desk.until("!document.querySelector('#notice').hidden")
        assert desk.notice.inner_text() == "この作品は読み込めません。", text
        desk.page.click("#notice button:last-child")
    desk.editor.fill("雨が")
    assert desk.stored()["title"] == "", "the tab lives on"


@pytest.mark.parametrize("ways", [(99, None), (1, 0)], ids=["nowhere", "ring"])
def test_a_way_that_leads_to_no_child_is_forgotten(
    desk: Desk, tmp_path: Path, ways: tuple[int, int | None]
) -> None:
    start = {"id": 0, "parent": None, "made": "start", "from": [0, 0], "to": None, "pieces": []}
    one = {**start, "id": 1, "parent": 0, "made": "typed", "pieces": [{"by": "me", "text": "雨"}]}
    versions = [
        {**start, "next": ways[0]},
        {**one, **({} if ways[1] is None else {"next": ways[1]})},
    ]
    file = tmp_path / "work.json"
    work = {"format": "neox-ja-story-1", "title": "題", "current": 1, "versions": versions}
    file.write_text(json.dumps(work), encoding="utf-8")
    desk.page.set_input_files("#file", file)
    desk.until("document.querySelector('#editor').value === '雨'")
    desk.page.click("#undo")
    desk.until("document.querySelector('#editor').value === ''")
    assert desk.page.locator("#redo").is_enabled() or ways[0] == 99


def test_a_text_in_shift_jis_can_be_imported(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "work.txt"
    for text, encoding in (
        ("雨が降る。", "shift_jis"),
        ("﨑から、①。", "cp932"),
        ("猫", "utf-8-sig"),
    ):
        file.write_bytes((text + "\r\n").encode(encoding))
        desk.page.set_input_files("#file", file)
        desk.until("document.querySelector('#editor').value === " + json.dumps(text + "\n"))
    file.write_bytes(b"\xff\xfe\x00")
    desk.page.set_input_files("#file", file)
    desk.notice.get_by_text("この作品は読み込めません").wait_for()
    assert desk.text == "猫\n"


def test_full_storage_is_told_and_the_work_offered_as_a_file(desk: Desk) -> None:
    desk.page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨")
    desk.notice.get_by_text("保存できません").wait_for()
    with desk.page.expect_download():
        desk.page.click("#notice button")


def test_what_could_not_be_kept_is_not_forgotten(desk: Desk) -> None:
    desk.page.click("#open-settings")
    desk.page.uncheck("#ask")
    desk.page.keyboard.press("Escape")
    desk.page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    desk.editor.fill("雨")
    told = desk.notice.get_by_text("保存できません")
    told.wait_for()
    desk.page.click("#notice button:last-child")
    desk.page.click("#open-settings")
    desk.page.click("#new")
    told.wait_for()
    with desk.page.expect_download() as download:
        desk.page.click("#notice button")
    assert "雨" in Path(download.value.path()).read_text(encoding="utf-8")
    desk.editor.fill("風")
    told.wait_for()
    asked = []
    desk.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    desk.page.close(run_before_unload=True)
    desk.page.wait_for_event("close") if not desk.page.is_closed() else None
    assert asked == ["beforeunload"]


def test_a_token_that_was_kept_without_alternatives_can_be_written_on_from(desk: Desk) -> None:
    desk.page.evaluate(
        """() => {
            const { setItem } = Storage.prototype;
            Storage.prototype.setItem = function (key, text) {
                if (text.includes('"top":')) throw new Error("full");
                setItem.call(this, key, text);
            };
        }"""
    )
    written = desk.write(length=5)
    desk.stored()
    desk.open()
    assert desk.text == BEGINNING + written
    desk.visible_tokens.last.click()
    desk.alternatives.first.wait_for()
    desk.page.locator("#branches button[value=again]").click()
    desk.until("!document.querySelector('#continue').hidden")
    assert desk.text != BEGINNING + written


def test_two_tabs_that_write_in_one_work_both_keep_what_they_wrote(desk: Desk) -> None:
    desk.editor.focus()
    desk.page.keyboard.insert_text("春の朝。")
    desk.stored()
    tabs = [desk]
    tabs.append(Desk(desk.page.context.new_page(), desk.url))
    tabs[1].open()
    assert tabs[1].text == "春の朝。"
    for tab, words in zip(tabs, ("雨が降る。", "風が吹く。"), strict=True):
        tab.page.bring_to_front()
        tab.editor.focus()
        tab.page.keyboard.press("Control+End")
        tab.page.keyboard.insert_text(words)
        tab.stored()
    tabs[1].notice.get_by_text("別の作品").wait_for()
    assert tabs[1].page.input_value("#title") == "春の朝。風が吹く。（2）"
    for tab, words in zip(tabs, ("雪になる。", "止む。"), strict=True):  # and go on
        tab.page.bring_to_front()
        tab.editor.focus()
        tab.page.keyboard.insert_text(words)
        tab.stored()
    tabs[1].page.close()
    desk.open()
    texts = set()
    for number in range(2):
        desk.page.click("#open-settings")
        assert desk.page.locator("#works li").count() == 2
        desk.page.locator("#works li button:first-child").nth(number).click()
        desk.page.wait_for_timeout(200)
        texts.add(desk.text)
    assert texts == {"春の朝。雨が降る。雪になる。", "春の朝。風が吹く。止む。"}


def test_a_text_that_was_cut_within_a_character_is_imported(desk: Desk, tmp_path: Path) -> None:
    text = "雨が降る。" * 40
    file = tmp_path / "work.txt"
    file.write_bytes(text.encode()[:-1])
    desk.page.set_input_files("#file", file)
    desk.until("document.querySelector('#editor').value.length > 100")
    assert desk.text == text[:-1] + "\ufffd"


def test_whole_numbers_stay_whole_and_others_are_as_fine_as_they_are_typed(desk: Desk) -> None:
    desk.page.click("#open-settings")
    for name, typed, taken in (
        ("長さ", "12.5", "80"),
        ("top_k", "7.5", "0"),
        ("温度", "0.73", "0.73"),
    ):
        field = desk.page.get_by_role("spinbutton", name=name)
        field.fill(typed)
        field.blur()
        assert field.input_value() == taken, name
