"""The tree of versions, and how much of each the model is not shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.server.page.conftest import BEGINNING, Desk


def in_story(desk: Desk, steps: str) -> Any:
    """What steps in JavaScript give; `story` is a new work, `runs` writes tokens of one letter."""
    return desk.page.evaluate(
        """async () => {
            const { Story, isStory } = await import("/page/manuscript/story.js");
            const story = new Story();
            const runs = text => {
                const version = story.addRun();
                for (const letter of text) {
                    story.append(version, {by: "model", id: 7, text: letter, bytes: [1]});
                }
            };
            const saved = () => JSON.parse(JSON.stringify(story));
            return STEPS({ Story, isStory, story, runs, saved });
        }""".replace("STEPS", f"({steps})")
    )


def test_every_version_has_its_own_unread_beginning(desk: Desk) -> None:
    found = in_story(
        desk,
        """({ story, runs }) => {
            const found = [];
            const note = () => found.push([story.text.length, story.unread]);
            story.type("一".repeat(20));
            runs("い".repeat(75));
            story.unread = 50;
            runs("う");
            note();
            story.cutAt(60, [{by: "model", id: 8, text: "え"}]);
            note(); // it began where all was read
            story.undo();
            note();
            story.undo(), story.undo();
            note();
            story.redo(), story.redo();
            note();
            story.type(story.text.slice(0, 50));
            note(); // nothing would be left to read
            return found;
        }""",
    )
    assert found == [[96, 50], [80, 0], [96, 50], [20, 0], [96, 50], [50, 0]]


def test_words_move_the_unread_beginning_only_if_they_stand_in_it(desk: Desk) -> None:
    found = in_story(
        desk,
        """({ story }) => {
            story.type("あ".repeat(100));
            story.unread = 50;
            const found = [];
            const type = text => {
                story.type(text);
                found.push(story.unread);
            };
            type("い" + story.text);
            for (let i = 0; i < 3; i++) type(story.text + "う"); // in one version with the first
            type(story.text.slice(0, 51) + "え" + story.text.slice(51));
            type(story.text.slice(2));
            type(story.text.slice(0, 40) + story.text.slice(60)); // the boundary itself
            return found;
        }""",
    )
    assert found == [51, 51, 51, 51, 51, 49, 0]


def test_what_is_unread_is_kept_with_each_version(desk: Desk) -> None:
    found = in_story(
        desk,
        """({ Story, isStory, story, runs, saved }) => {
            story.type("一".repeat(20));
            runs("い".repeat(30));
            story.unread = 10;
            const works = [saved(), { ...saved(), unread: 15 }, { ...saved(), unread: 90 }];
            works.slice(1).forEach(({ versions }) => versions.forEach(each => delete each.unread));
            return works.map(work => {
                if (!isStory(work)) return null;
                const read = new Story(work);
                const here = read.unread;
                read.undo();
                return [here, read.unread];
            });
        }""",
    )
    assert found == [[10, 0], [15, 15], [0, 0]], "also of a work that kept one number for all"


def test_of_many_versions_every_one_is_reached_and_few_are_remembered(desk: Desk) -> None:
    found = in_story(
        desk,
        """({ Story, isStory, story, runs, saved }) => {
            const texts = {};
            for (let i = 0; i < 200; i++) {
                runs("いろは");
                texts[story.current] = story.text;
                story.type(story.text.slice(0, 2 * i) + "の" + story.text.slice(2 * i + i % 2));
                texts[story.current] = story.text;
                if (i % 50 === 49) {
                    story.cutAt(i, [{by: "me", text: "あ"}]);
                    texts[story.current] = story.text;
                }
            }
            const work = new Story(saved());
            const isRight = () => work.text === texts[work.current];
            const ids = Object.keys(texts).map(Number);
            const scattered = ids.map((_, i) => ids[i * 61 % ids.length]);
            const wrong = scattered.filter(id => (work.go(id), !isRight()));
            work.goToEnd(ids.at(-1));
            while (work.current && isRight()) work.undo();
            return [isStory(saved()), wrong, work.current, ids.length, work.cache.size < 100];
        }""",
    )
    assert found == [True, [], 0, 404, True]


def test_a_version_that_was_gone_to_is_not_overwritten(desk: Desk) -> None:
    found = in_story(
        desk,
        """({ story }) => {
            story.type("雨");
            story.undo(), story.redo();
            story.type("雪");
            story.type("雪が"); // this is one version with the last
            story.undo();
            return story.text;
        }""",
    )
    assert found == "雨"


def test_a_character_of_several_tokens_is_changed_as_a_whole(desk: Desk) -> None:
    found = in_story(
        desk,
        """({ Story }) => {
            const bytes = text => [...new TextEncoder().encode(text)];
            const change = text => {
                const story = new Story();
                story.type("雨が");
                const version = story.addRun();
                for (const [i, byte] of bytes("鮒𩸽").entries()) {
                    const shown = {2: "鮒", 6: "𩸽"}[i] ?? "";
                    story.append(version, {by: "model", id: i, text: shown, bytes: [byte]});
                }
                story.type(text);
                return story.pieces().map(piece => piece.id ?? piece.text);
            };
            return ["", "𩸽", "鮒", "大鮒𩸽", "鮒大𩸽", "鮒大", "鮒𩸽大"]
                .map(rest => change(`雨が${rest}`));
        }""",
    )
    carp, hokke = [0, 1, 2], [3, 4, 5, 6]
    assert found == [
        ["雨が"],
        ["雨が", *hokke],
        ["雨が", *carp],
        ["雨が", "大", *carp, *hokke],
        ["雨が", *carp, "大", *hokke],
        ["雨が", *carp, "大"],
        ["雨が", *carp, *hokke, "大"],
    ]


def test_a_new_work_knows_nothing_of_another(desk: Desk) -> None:
    desk.editor.fill(BEGINNING)
    desk.stored()
    desk.page.click("#open-settings")
    desk.page.click("#new")
    desk.until("document.querySelector('#editor').value === ''")
    assert desk.page.is_disabled("#redo")


def test_a_branch_can_be_continued_after_a_longer_one_lost_its_beginning(
    desk: Desk, tmp_path: Path
) -> None:
    desk.write(length=3)
    first = desk.text
    desk.page.keyboard.press("Escape")
    work = desk.stored()
    long = (BEGINNING + "\n") * 32
    parent = work["current"]
    piece = {"by": "me", "text": long}
    version = {"id": 90, "parent": parent, "made": "typed", "from": [4, 0], "to": None}
    work["versions"].append({**version, "pieces": [piece]})
    file = tmp_path / "long.json"
    file.write_text(json.dumps({**work, "current": 90}), encoding="utf-8")
    desk.page.set_input_files("#file", file)
    desk.until(f"document.querySelector('#editor').value.length > {len(long)}")
    desk.page.click("#continue")
    desk.notice.get_by_text("文脈がいっぱいです").wait_for()
    desk.page.click("#notice button")
    desk.page.locator("#reading .unread").first.wait_for()
    marked = "[...document.querySelectorAll('#reading .unread')].map(e => e.textContent).join('')"
    [kept] = [each["unread"] for each in desk.stored()["versions"] if each["id"] == 90]
    assert len(desk.page.evaluate(marked)) == kept, "just what is not read is grey"
    desk.page.click("#undo")
    assert desk.text == first
    assert desk.page.locator("#reading .unread").count() == 0
    desk.page.click("#continue")
    desk.wait()
    assert desk.text.startswith(first)
    assert len(desk.text) > len(first)
