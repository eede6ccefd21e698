"""Branches at every token, the tree of them, drafts, undo."""

from __future__ import annotations

import json
from pathlib import Path

from tests.server.page.conftest import BEGINNING, Desk
from tests.server.page.test_waiting import refuse


def test_an_alternative_cuts_the_text_and_is_written_on_from(desk: Desk) -> None:
    written = desk.write(length=12)
    token = desk.visible_tokens.nth(4)
    here = token.get_attribute("data-i")
    tokens = desk.tokens.evaluate_all("all => all.map(e => [e.dataset.i, e.textContent])")
    head = "".join(text for i, text in tokens[: [i for i, _ in tokens].index(here)])
    token.click()
    shown = desk.alternatives.all_inner_texts()
    assert len(shown) >= 8
    assert all("%" in row for row in shown)
    other = desk.page.locator("#branches li[aria-selected=false]:not([aria-disabled=true])").first
    other_id = int(other.locator("code").inner_text().split()[0])
    with desk.page.expect_request("**/v1/completions") as request:
        other.click()
    desk.wait()
    assert request.value.post_data_json["prompt"][-1] == other_id, "exactly that token stands there"
    assert desk.text.startswith(BEGINNING + head)
    assert desk.text != BEGINNING + written
    desk.page.locator("#reading").focus()
    second = desk.text
    desk.page.keyboard.press("ArrowLeft")
    assert desk.text == BEGINNING + written, "what was there before is a sibling"
    desk.page.keyboard.press("ArrowRight")
    assert desk.text == second
    desk.page.click("#open-tree")
    [_, one, other] = desk.page.locator("#tree button").all_inner_texts()
    assert one[:2] != other[:2], "each branch is told by what it has alone"
    desk.page.click("#undo")
    desk.page.click("#undo")
    assert desk.text == BEGINNING + written, "undo goes back to where the choice was made"
    desk.page.click("#redo")
    desk.page.click("#redo")
    assert desk.text == second


def test_alternatives_are_told_with_id_and_bytes(desk: Desk) -> None:
    desk.write(length=3)
    shown = desk.visible_tokens.first
    number = int(shown.get_attribute("data-i") or "")
    shown.click()
    row = desk.page.locator("#branches li[aria-selected=true]")
    token = [piece for version in desk.stored()["versions"] for piece in version["pieces"]][number]
    told = row.locator("code").inner_text().split()
    assert told == [str(token["id"]), *(f"{byte:02x}" for byte in token["bytes"])]


def test_both_branches_stay_in_the_tree(desk: Desk) -> None:
    desk.write(length=10)
    first = desk.text
    desk.page.click("#rewrite")
    desk.wait()
    second = desk.text
    assert second != first
    desk.page.click("#open-tree")
    assert desk.page.locator("#tree button").count() == 3
    desk.page.locator("#tree button").nth(1).click()
    assert desk.text == first
    desk.page.keyboard.press("ArrowRight")
    assert desk.text == second
    desk.page.locator("#reading").focus()
    desk.page.keyboard.press("ArrowRight")
    assert desk.text == first, "siblings are a ring"


def test_undo_and_redo_go_along_the_tree(desk: Desk) -> None:
    desk.write(length=5)
    first = desk.text
    desk.page.click("#continue")
    desk.wait()
    second = desk.text
    desk.page.click("#undo")
    assert desk.text == first
    desk.page.click("#undo")
    assert desk.text == BEGINNING
    desk.page.click("#undo")
    assert desk.text == ""
    for _ in range(3):
        desk.page.click("#redo")
    assert desk.text == second
    assert desk.page.is_disabled("#redo")


def test_an_edit_in_the_middle_keeps_the_tokens_after_it(desk: Desk) -> None:
    written = desk.write(length=10)
    desk.page.click("#mode")
    desk.editor.evaluate("e => e.setSelectionRange(1, 2)")
    desk.page.keyboard.insert_text("夏")
    assert desk.text == "　夏" + BEGINNING[2:] + written
    desk.page.keyboard.press("Escape")
    assert desk.tokens.count() == 10
    desk.visible_tokens.last.click()
    assert desk.alternatives.count() >= 8


def test_three_drafts_stand_side_by_side_and_one_is_taken(desk: Desk) -> None:
    desk.write(length=8)
    before = desk.text
    desk.page.click("#three")
    desk.wait()
    drafts = desk.page.locator("#drafts p").all_text_contents()
    assert len(drafts) == len(set(drafts)) == 3
    desk.page.locator("#drafts button", has_text="これにする").nth(1).click()
    assert desk.text == before + drafts[1]
    desk.page.locator("#reading").focus()
    desk.page.keyboard.press("ArrowRight")
    assert desk.text == before + drafts[2], "the others are branches"


def test_the_same_seed_writes_the_same(desk: Desk) -> None:
    first = desk.write(length=10)
    desk.page.click("#open-settings")
    desk.page.check("#same-seed")
    desk.page.keyboard.press("Escape")
    desk.page.click("#rewrite")
    desk.wait()
    assert desk.text == BEGINNING + first


def test_a_run_that_writes_nothing_leaves_every_branch_where_it_was(desk: Desk) -> None:
    desk.write(length=3)
    first = desk.text
    desk.page.route("**/v1/completions", lambda route: route.fulfill(**refuse(400, "no")))
    desk.page.click("#rewrite")
    desk.notice.get_by_text("no").wait_for()
    assert desk.text == first, "nothing took its place"
    desk.page.click("#undo")
    assert desk.text == BEGINNING
    for button in ("#continue", "#three"):
        desk.page.click(button)
        desk.notice.get_by_text("no").wait_for()
        assert desk.text == BEGINNING
        assert not desk.page.is_visible("#drafts")
    desk.page.click("#redo")
    assert desk.text == first


def test_what_another_vocabulary_wrote_can_be_seen_but_not_chosen(
    desk: Desk, tmp_path: Path
) -> None:
    desk.write(length=4)
    work = desk.stored()
    for version in work["versions"]:
        for piece in version["pieces"]:
            assert (piece.pop("vocabulary", None) is None) == (piece["by"] == "me")
    file = tmp_path / "old.json"
    file.write_text(json.dumps(work), encoding="utf-8")
    text = desk.text
    desk.page.set_input_files("#file", file)
    desk.page.locator("#settings").wait_for(state="hidden")
    desk.page.wait_for_timeout(300)
    desk.visible_tokens.last.click()
    assert desk.alternatives.count() >= 8
    desk.page.locator("#branches header").get_by_text("語彙").wait_for()
    assert desk.page.locator("#branches li:not([aria-disabled=true])").count() == 0
    desk.page.keyboard.press("2")
    assert desk.text == text
    desk.page.keyboard.press("Escape")
    with desk.page.expect_request("**/v1/completions"):
        desk.page.click("#continue")
    desk.wait()
    assert desk.text.startswith(text)
