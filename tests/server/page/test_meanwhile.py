"""What the writer does while a run begins, goes on or ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.server.page.conftest import BEGINNING, Desk
from tests.server.page.test_waiting import refuse

if TYPE_CHECKING:
    from playwright.sync_api import Route


def begin(desk: Desk) -> None:
    """Let the model write for long."""
    desk.set("長さ", 250)
    desk.editor.focus()
    desk.page.keyboard.insert_text(BEGINNING)
    desk.page.keyboard.press("Control+Enter")
    desk.wait_for_tokens(3)


def hold(desk: Desk, path: str) -> list[Route]:
    """Requests that are answered when the test lets them go."""
    held: list[Route] = []
    desk.page.route(f"**/{path}", lambda route: held.append(route))
    return held


def wait_for(desk: Desk, held: list[Route], number: int) -> None:
    for _ in range(500):
        if len(held) >= number:
            return
        desk.page.wait_for_timeout(20)
    page = "[document.activeElement.id, document.querySelector('#state').textContent]"
    raise AssertionError(
        f"{len(held)} requests; the focus and what is said: {desk.page.evaluate(page)}"
    )


def begin_held(desk: Desk) -> Route:
    """A run of five tokens that waits for its answer until the request goes on."""
    held = hold(desk, "v1/completions")
    desk.set("長さ", 5)
    desk.editor.focus()
    desk.page.keyboard.insert_text(BEGINNING)
    desk.page.keyboard.press("Control+Enter")
    wait_for(desk, held, 1)
    return held[0]


def works(desk: Desk) -> list[str]:
    """The beginnings of what this browser keeps."""
    desk.page.wait_for_timeout(600)  # a change is saved after a moment
    keys: list[str] = desk.page.evaluate(
        "Object.keys(localStorage).filter(key => key.startsWith('neox-ja:work:'))"
    )
    listed = desk.page.evaluate("JSON.parse(localStorage['neox-ja:works'] ?? '[]')")
    assert len(keys) == len(listed)
    return [each["title"] for each in listed]


def test_a_work_that_is_deleted_while_it_is_written_stays_deleted(desk: Desk) -> None:
    begin(desk)
    desk.page.on("dialog", lambda dialog: dialog.accept())
    desk.page.click("#open-settings")
    desk.page.get_by_role("button", name="消す").click()
    desk.until("document.querySelector('#editor').value === ''")
    assert works(desk) == []
    assert desk.page.locator("#works li").count() == 0
    desk.page.keyboard.press("Escape")
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    assert works(desk) == ["雨が"]


def test_the_open_work_can_be_opened_again_while_it_is_written(desk: Desk) -> None:
    begin(desk)
    desk.page.click("#open-settings")  # keeps what is there
    desk.page.wait_for_timeout(300)
    written = desk.tokens.count()
    desk.page.locator("#works button").first.click()
    desk.wait()
    desk.page.locator("#settings").wait_for(state="hidden")
    assert desk.text.startswith(BEGINNING)
    assert desk.tokens.count() >= written, "what was written is there"


def test_a_work_is_kept_with_its_run_when_another_is_begun(desk: Desk) -> None:
    begin(desk)
    desk.page.click("#open-settings")
    desk.page.click("#new")
    desk.until("document.querySelector('#editor').value === ''")
    desk.page.click("#open-settings")
    desk.page.locator("#works button").first.click()
    desk.until("document.querySelector('#editor').value !== ''")
    assert desk.tokens.count() >= 3


def test_an_import_during_a_run_keeps_both_works(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "work.txt"
    file.write_text("猫がいる。", encoding="utf-8")
    begin(desk)
    desk.page.set_input_files("#file", file)
    desk.until("document.querySelector('#editor').value === '猫がいる。'")
    assert len(works(desk)) == 2
    assert desk.text == "猫がいる。"


def test_a_work_that_another_tab_changed_is_read_again_during_a_run(desk: Desk) -> None:
    desk.write(length=3)
    desk.stored()
    other = desk.page.context.new_page()
    other.goto(desk.url)
    tab = Desk(other, desk.url)
    tab.until("document.querySelector('#editor').value !== ''")
    held = hold(desk, "v1/completions")  # a run that ended would be kept over the other's words
    desk.page.keyboard.press("Control+Enter")
    wait_for(desk, held, 1)
    other.click("#mode")
    other.keyboard.insert_text("猫")
    desk.notice.get_by_text("別のタブ").wait_for()
    text = tab.text
    desk.page.click("#notice button")
    desk.until(f"document.querySelector('#editor').value === {text!r}")
    desk.page.wait_for_timeout(600)
    other.close()
    desk.open()
    assert desk.text == text, "the other tab's words were not overwritten"


def test_a_work_that_cannot_be_kept_stays_on_the_desk_until_it_is_written_out(desk: Desk) -> None:
    desk.page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨")
    desk.notice.get_by_text("保存できません").wait_for()
    desk.page.click("#open-settings")
    desk.page.click("#new")
    desk.notice.get_by_text("保存できません").wait_for()
    assert desk.text == "雨"
    with desk.page.expect_download() as download:
        desk.page.click("#notice button")
    assert "雨" in Path(download.value.path()).read_text(encoding="utf-8")
    desk.page.click("#open-settings")
    desk.page.click("#new")
    desk.until("document.querySelector('#editor').value === ''")


def test_a_save_that_failed_makes_no_second_work(desk: Desk) -> None:
    desk.editor.fill("雨が")
    desk.stored()
    desk.page.evaluate(
        "() => { window.full = true; const set = Storage.prototype.setItem;"
        " Storage.prototype.setItem = function (...given) {"
        " if (window.full) throw new Error('full'); set.apply(this, given) } }"
    )
    desk.editor.fill("雨が降")
    desk.notice.get_by_text("保存できません").wait_for()
    desk.editor.fill("雨が降る")
    desk.page.wait_for_timeout(600)
    desk.page.evaluate("window.full = false")
    desk.editor.fill("雨が降る。")
    assert works(desk) == ["雨が降る。"]


def open_without_model(desk: Desk) -> list[Route]:
    """Load the page while the server does not say which model it has."""
    held = hold(desk, "v1/models")
    desk.page.goto(desk.url)
    wait_for(desk, held, 1)
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    return held


def test_one_run_begins_however_often_it_is_asked_for(desk: Desk) -> None:
    held = open_without_model(desk)
    runs: list[str] = []
    desk.page.on("request", lambda sent: "completions" in sent.url and runs.append(sent.url))
    for _ in range(3):
        desk.page.keyboard.press("Control+Enter")
    wait_for(desk, held, 2)
    assert desk.page.is_visible("#stop")
    desk.page.wait_for_timeout(200)
    assert len(held) == 2, "the page's own question and the run's"
    for route in held:
        route.continue_()
    desk.wait()
    assert len(runs) == 1
    assert len(desk.text) > 2


def test_a_run_can_be_stopped_before_the_model_is_known(desk: Desk) -> None:
    held = open_without_model(desk)
    desk.page.keyboard.press("Control+Enter")
    wait_for(desk, held, 2)
    desk.page.click("#stop")
    desk.wait()
    for route in held[:1]:
        route.continue_()
    desk.page.wait_for_selector("#context[max]", state="attached")
    assert desk.text == "雨が"
    assert not desk.notice.is_visible()
    desk.page.unroute("**/v1/models")
    desk.page.click("#continue")
    desk.wait()
    assert len(desk.text) > 2


def test_a_model_that_is_being_loaded_is_waited_for_and_told(desk: Desk) -> None:
    refusal = refuse(503, "loading", **{"Retry-After": "60"})
    desk.page.route("**/v1/models", lambda route: route.fulfill(**refusal))
    desk.page.goto(desk.url)
    desk.notice.get_by_text("モデルを読み込んでいます").wait_for()
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+Enter")
    desk.until("document.querySelector('#continue').hidden")
    desk.notice.get_by_text("モデルを読み込んでいます").wait_for()
    desk.page.get_by_role("button", name="やめる").click()
    desk.wait()
    desk.page.wait_for_timeout(1100)
    assert not desk.notice.is_visible(), "nobody waits any more"
    assert desk.text == "雨が"
    desk.page.unroute("**/v1/models")
    desk.page.click("#continue")
    desk.wait()
    assert len(desk.text) > 2


def test_words_of_an_input_method_begun_during_a_run_stand_after_it(desk: Desk) -> None:
    run = begin_held(desk)
    session = desk.page.context.new_cdp_session(desk.page)
    session.send("Input.imeSetComposition", {"text": "ね", "selectionStart": 1, "selectionEnd": 1})
    run.continue_()
    desk.wait_for_tokens(5)
    desk.wait()
    session.send("Input.insertText", {"text": "猫"})
    assert desk.text.startswith(BEGINNING)
    assert desk.text.endswith("猫")
    assert "ね" not in desk.text[len(BEGINNING) :]
    desk.page.keyboard.press("Escape")
    assert desk.tokens.count() == 5, "the run was not overwritten"


def test_words_of_an_input_method_ended_during_a_run_stand_after_it(desk: Desk) -> None:
    run = begin_held(desk)
    session = desk.page.context.new_cdp_session(desk.page)
    for word in ("猫", "犬"):
        selection = {"selectionStart": 1, "selectionEnd": 1}
        session.send("Input.imeSetComposition", {"text": "ね", **selection})
        session.send("Input.insertText", {"text": word})
    run.continue_()
    desk.wait()
    assert desk.text.startswith(BEGINNING)
    assert desk.text.endswith("猫犬")
    desk.page.keyboard.press("Escape")
    assert desk.tokens.count() == 5
    desk.stored()
    desk.open()
    assert desk.text.endswith("猫犬"), "they are kept"


def test_a_branch_can_be_gone_to_during_a_run(desk: Desk) -> None:
    desk.write(length=3)
    first = desk.text
    desk.page.click("#rewrite")
    desk.wait()
    desk.page.click("#open-tree")
    desk.set("長さ", 250)
    desk.page.click("#continue")
    desk.wait_for_tokens(6)
    desk.page.locator("#tree button").nth(1).click()
    desk.wait()
    assert desk.text == first


def test_a_key_that_was_given_is_not_asked_for_again(desk: Desk) -> None:
    held = open_without_model(desk)
    desk.page.keyboard.press("Control+Enter")
    wait_for(desk, held, 2)
    held[0].fulfill(**refuse(401, "invalid_api_key"))
    desk.page.fill("#key-field", "himitsu")
    desk.page.keyboard.press("Enter")
    wait_for(desk, held, 3)
    held[1].fulfill(**refuse(401, "invalid_api_key"))
    wait_for(desk, held, 4)
    assert held[3].request.headers["authorization"] == "Bearer himitsu"
    for route in held[2:]:
        route.continue_()
    desk.wait()
    assert len(desk.text) > 2


def test_the_meter_tells_of_the_work_on_the_desk(new_desk: Callable[..., Desk]) -> None:
    desk = new_desk()
    desk.page.wait_for_timeout(700)  # the empty work is measured
    held = hold(desk, "tokenize")
    desk.editor.focus()
    desk.page.keyboard.insert_text(BEGINNING)
    wait_for(desk, held, 1)
    desk.page.click("#open-settings")
    desk.page.click("#new")
    desk.until("document.querySelector('#context').nextElementSibling.textContent[0] === '0'")
    desk.page.wait_for_timeout(700)
    held[0].continue_()
    desk.page.wait_for_timeout(300)
    assert desk.page.locator("#context").evaluate("meter => meter.value") == 0


def test_a_word_is_not_chosen_in_a_text_that_stands_there_no_more(desk: Desk) -> None:
    desk.write(length=5)
    desk.visible_tokens.last.click()
    other = desk.page.locator("#branches li[aria-selected=false]:not([aria-disabled=true])").first
    other.wait_for()
    desk.page.locator("#undo").press("Enter")
    other.click()
    desk.page.wait_for_timeout(200)
    assert desk.text == BEGINNING
    assert desk.page.is_visible("#continue")
