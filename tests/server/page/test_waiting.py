"""What a busy, locked or small server means for the writer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.server.page.conftest import BEGINNING, Desk
from tests.server.serving import Process

if TYPE_CHECKING:
    from playwright.sync_api import Route


def refuse(status: int, code: str, **headers: str) -> dict[str, object]:
    error = {"message": code, "type": "error", "param": None, "code": code}
    return {"status": status, "headers": headers, "json": {"error": error}}


def test_a_full_queue_is_waited_for(desk: Desk) -> None:
    calls = []

    def answer(route: Route) -> None:
        calls.append(route.request.url)
        if len(calls) == 1:
            route.fulfill(**refuse(429, "queue_full", **{"Retry-After": "2"}))
        else:
            route.continue_()

    desk.page.route("**/v1/completions", answer)
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+Enter")
    desk.notice.get_by_text("2 秒後").wait_for()
    desk.notice.get_by_text("1 秒後").wait_for()
    desk.wait()
    assert len(calls) == 2
    assert len(desk.text) > 2
    assert not desk.notice.is_visible()


def test_waiting_can_be_given_up(desk: Desk) -> None:
    refusal = refuse(429, "queue_full", **{"Retry-After": "60"})
    desk.page.route("**/v1/completions", lambda route: route.fulfill(**refusal))
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+Enter")
    desk.notice.get_by_text("秒後").wait_for()
    desk.page.keyboard.press("Escape")
    desk.wait()
    assert desk.text == "雨が"
    assert not desk.notice.is_visible()


def test_the_key_is_asked_for_and_kept_in_this_tab_only(desk: Desk) -> None:
    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer himitsu":
            route.continue_()
        else:
            route.fulfill(**refuse(401, "invalid_api_key"))

    for path in ("v1/models", "v1/completions", "tokenize"):
        desk.page.route(f"**/{path}", answer)
    desk.page.goto(desk.url)
    desk.page.fill("#key-field", "wrong")
    desk.page.keyboard.press("Enter")
    desk.page.locator("#key[open]").wait_for()
    desk.page.fill("#key-field", "himitsu")
    desk.page.keyboard.press("Enter")
    desk.page.wait_for_selector("#context[max]", state="attached")
    assert desk.write(length=3)
    assert "himitsu" not in desk.page.evaluate("JSON.stringify(localStorage)")
    assert "himitsu" in desk.page.evaluate("JSON.stringify(sessionStorage)")


def test_a_key_that_no_header_can_hold_is_not_taken_and_asked_for_again(desk: Desk) -> None:
    desk.page.route(
        "**/v1/models",
        lambda route: (
            route.continue_()
            if route.request.headers.get("authorization") == "Bearer himitsu"
            else route.fulfill(**refuse(401, "invalid_api_key"))
        ),
    )
    desk.page.evaluate("sessionStorage['neox-ja:key'] = 'ｈｉｍｉｔｓｕ'")
    desk.page.goto(desk.url)
    desk.page.fill("#key-field", "ひみつ")
    desk.page.keyboard.press("Enter")
    assert desk.page.evaluate("!document.querySelector('#key-field').checkValidity()")
    assert desk.page.locator("#key[open]").count() == 1
    desk.page.fill("#key-field", "himitsu")
    desk.page.keyboard.press("Enter")
    desk.page.wait_for_selector("#context[max]", state="attached")


def test_the_place_in_the_queue_is_told(desk: Desk, process: Process) -> None:
    body = {"prompt": BEGINNING, "max_tokens": 400, "n": 50, "min_tokens": 400, "stream": True}
    another = process.connect("/v1/completions", body)
    another.recv(100)
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+Enter")
    desk.page.locator("#state", has_text="番目").wait_for()
    another.close()
    desk.wait()
    assert len(desk.text) > 2


def test_a_broken_stream_keeps_what_came_and_says_so(desk: Desk) -> None:
    token = {"id": 5354, "text": "降", "bytes": [233, 153, 141], "logprob": -1.7, "top": []}
    chunk = {
        "choices": [{"index": 0, "text": "降", "finish_reason": None, "token_details": [token]}]
    }
    desk.page.route(
        "**/v1/completions",
        lambda route: route.fulfill(
            status=200,
            content_type="text/event-stream",
            body=f": waiting 2\n\ndata: {json.dumps(chunk)}\n\n",
        ),
    )
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+Enter")
    desk.notice.get_by_text("途中で切れました").wait_for()
    assert desk.text == "雨が降"


def test_an_error_of_the_server_is_shown_in_its_words(desk: Desk) -> None:
    desk.page.route("**/v1/completions", lambda route: route.fulfill(**refuse(400, "stop is <b>")))
    desk.editor.focus()
    desk.page.keyboard.insert_text("雨が")
    desk.page.keyboard.press("Control+Enter")
    desk.notice.get_by_text("stop is <b>").wait_for()


def test_another_model_is_met_when_the_server_has_one(desk: Desk) -> None:
    refusal = refuse(404, "model_not_found")
    desk.page.route("**/v1/completions", lambda route: route.fulfill(**refusal), times=1)
    desk.editor.fill("雨が")
    desk.page.click("#continue")
    desk.notice.get_by_text("モデルが替わりました").wait_for()
    with desk.page.expect_request("**/v1/models"):
        desk.page.click("#continue")
    desk.wait()
    assert len(desk.text) > 2


def test_a_full_context_is_told_and_the_beginning_can_be_left_unread(desk: Desk) -> None:
    text = (BEGINNING + "\n") * 32
    desk.editor.focus()
    desk.page.keyboard.insert_text(text)
    desk.page.keyboard.press("Control+Enter")
    desk.notice.get_by_text("文脈がいっぱいです").wait_for()
    desk.page.click("#notice button")
    desk.page.locator("#reading .unread").first.wait_for()
    assert desk.text == text, "the manuscript stays whole"
    desk.page.click("#continue")
    desk.wait()
    assert len(desk.text) > len(text)


def test_a_long_text_is_sent_in_parts_of_whole_characters(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_text("あ" * 49_999 + "\U00020bb7", encoding="utf-8")
    desk.page.set_input_files("#file", file)
    desk.until("document.querySelector('#editor').value.length > 50000")
    desk.page.click("#continue")
    desk.notice.get_by_text("文脈がいっぱいです").wait_for()


def test_nothing_is_asked_without_a_first_line(desk: Desk) -> None:
    desk.page.click("#continue")
    desk.notice.get_by_text("はじめの一行").wait_for()
