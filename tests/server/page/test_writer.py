"""What the model is shown is what the manuscript shows."""

from __future__ import annotations

from typing import Any

from tests.server.page.conftest import Desk


def in_writer(desk: Desk, steps: str) -> Any:
    """What steps in JavaScript give.

    `story` begins with 雨; `run(tokens, ended)` lets a model write them after it, a token being an
    id, the text that the server tells, and its bytes where they are not the text's. `prompts` are
    what it was shown; the id of one of the writer's characters is the character.
    """
    return desk.page.evaluate(
        """async () => {
            const { Story } = await import("/page/manuscript/story.js");
            const { Writer, pieceOf } = await import("/page/model/writer.js");
            const story = new Story();
            story.type("雨");
            const options = { stop: [], sampling: {}, seed: 1, forget: false, length: 8 };
            const model = { id: "m", max_model_len: 512, vocabulary: "v", defaults: {} };
            const bytes = text => [...new TextEncoder().encode(text)];
            const token = ([id, text, own = bytes(text)]) =>
                ({ id, text, bytes: own, logprob: -1, top: [] });
            const [prompts, tokenized] = [[], []];
            let answer;
            const api = {
                models: async () => [{ ...model }],
                async tokenize(text) {
                    tokenized.push(text);
                    return { pieces: [...text].map((id, start) => ({ id, start })) };
                },
                async *complete({ prompt }) {
                    prompts.push([...prompt]);
                    yield { choices: [answer] };
                },
            };
            const writer = new Writer(api, () => options);
            const run = async (tokens, finish_reason = "length") => {
                answer = { index: 0, token_details: tokens.map(token), finish_reason };
                await writer.write(story, 1);
                if (writer.state.error) throw writer.state.error;
                return story.text;
            };
            return STEPS({ Story, story, writer, pieceOf, options, model, api, bytes, token, run,
                prompts, tokenized });
        }""".replace("STEPS", f"await ({steps})")
    )


def test_bytes_become_the_characters_that_they_make_with_those_before_them(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ Story, story, run }) => {
            const start = story.current;
            const texts = [];
            const [of, open] = [(...own) => own.map(byte => [byte, "", [byte]]), [0xe9, 0xae]];
            const ends = [
                of(0x92),                              // 鮒
                [...of(0xe3, 0x81), [0x82, "あ", [0x82]]], // the first bytes are no character
                [[7, "雪"]],
                of(0x28),
                of(0xff, 0x92),
            ];
            for (const end of ends) {
                story.jump(start);
                await run([[6, "が"], ...of(...open)]);
                texts.push(await run([...end, [8, "ふ"]]));
            }
            story.jump(start);
            texts.push(await run([...of(0x81, 0x82), [7, "雪"]]));
            return texts;
        }""",
    )
    assert found == ["雨が鮒ふ", "雨があふ", "雨が雪ふ", "雨が(ふ", "雨がふ", "雨雪"]


def test_another_last_byte_is_another_character(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ story, run, pieceOf, prompts }) => {
            await run([[0xe9, "", [0xe9]], [0xae, "", [0xae]], [0x92, "鮒", [0x92]], [8, "が"]]);
            const choice = { id: 0x95, text: "", bytes: [0x95], vocabulary: "v" };
            story.cutAt(3, [pieceOf(choice, story.pieces().slice(0, 3))]);
            const chosen = story.text;
            return [chosen, await run([[8, "が"]]), prompts.at(-1)];
        }""",
    )
    assert found == ["雨鮕", "雨鮕が", ["雨", 0xE9, 0xAE, 0x95]]


def test_tokens_that_do_not_say_what_the_manuscript_shows_are_not_sent(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ Story, story, bytes, writer }) => {
            const version = story.addRun();
            const add = (id, text, own = bytes(text)) =>
                story.append(version, { by: "model", id, text, bytes: own, vocabulary: "v" });
            add(1, "が");
            add(2, "", bytes("<|endoftext|>"));
            add(3, "降", bytes("降る"));
            add(4, "", [0xe9]); // and its last bytes were cut away
            add(5, "\u3000", [0x20]);
            add(6, "鮒", [0x92]); // and its first bytes
            add(7, "", [0xe9]), add(8, "", [0xae]);
            return writer.prompt(story);
        }""",
    )
    assert found == ["雨", 1, "降", 5, "鮒", 7, 8], "bytes at the end may still become a character"


def test_a_stop_string_stands_in_the_manuscript_and_is_gone_on_behind(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ story, run, prompts, options, writer, bytes }) => {
            const start = story.current;
            const texts = [];
            const ends = [
                [["。"], [[2, "る"], [3, "", bytes("。")]]],
                [["の名", "の名で"], [[2, "降る", bytes("降るの")], [3, "", bytes("名である")]]],
                [["鮒"], [[2, "", [0xe9]], [3, "", [0xae]], [4, "", [0x92]]]],
            ];
            for (const [stop, tokens] of ends) {
                options.stop = stop;
                story.jump(start);
                await run([[1, "が"]]);
                const text = await run(tokens, "stop");
                texts.push([text, writer.state.ended]);
                await run([[9, "ふ"]]);
                texts.at(-1).push(prompts.at(-1));
            }
            return texts;
        }""",
    )
    assert found == [
        ["雨がる。", "string", ["雨", 1, 2, 3]],
        ["雨が降るの名", "string", ["雨", 1, 2, "名"]],
        ["雨が鮒", "string", ["雨", 1, 2, 3, 4]],
    ]


def test_the_model_does_not_read_that_it_ended_the_text(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ story, run, prompts, options, writer, bytes }) => {
            options.stop = ["。"];
            const mark = [2, "", bytes("<|endoftext|>")];
            const text = await run([[1, "が"], mark], "stop");
            const { ended } = writer.state;
            await run([[9, "ふ"]]);
            return [text, ended, prompts.at(-1), story.pieces().length];
        }""",
    )
    assert found == ["雨が", "stop", ["雨", 1], 3]


def test_what_another_vocabulary_wrote_is_read_as_words(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ Story, story, run, prompts, model, writer }) => {
            await run([[1, "が"]]);
            model.vocabulary = "another"; // of a server that was started again
            await run([[2, "降"]]);
            await run([[3, "る"]]);
            model.vocabulary = "v";
            await run([[4, "。"]]);
            const old = JSON.parse(JSON.stringify(story));
            old.versions.forEach(({ pieces }) => pieces.forEach(each => delete each.vocabulary));
            return [...prompts, await writer.prompt(new Story(old))];
        }""",
    )
    assert found == [
        ["雨"],
        ["雨", "が"],
        ["雨", "が", 2],
        ["雨", 1, "降", "る"],
        ["雨", "が", "降", "る", "。"],
    ], "also what a work says nothing of"


def test_words_are_encoded_once_however_many_there_are_and_unread_ones_never(desk: Desk) -> None:
    found = in_writer(
        desk,
        """async ({ story, run, tokenized, writer }) => {
            for (let i = 0; i < 70; i++) {
                story.jump(story.current);
                story.type(`${story.text}そして${i}`);
                const version = story.addRun();
                story.append(version, { by: "model", id: 1, text: "が", bytes: [0xe3, 0x81, 0x8c],
                    vocabulary: "v" });
            }
            await writer.meetModel();
            const { text } = story;
            story.unread = text.indexOf("して60");
            const counts = [];
            for (const unread of [story.unread, 0, 0]) {
                story.unread = unread;
                const ids = await writer.prompt(story);
                counts.push(tokenized.length, ids.join("").replaceAll("1", "") ===
                    text.slice(unread).replaceAll(/[が1]/g, ""));
            }
            return counts;
        }""",
    )
    assert found == [10, True, 70, True, 70, True]
