"""From lines of messages to windows: what is learned, what is seen, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt_neox_japanese import Codec, default_model_directory
from gpt_neox_japanese.assets import default_chat_template
from gpt_neox_japanese.errors import ArgumentError, CorpusError, DataError, OutputError
from gpt_neox_japanese.tokenizer.chat_template import find_chat_template
from gpt_neox_japanese.training.data.conversation_windows import (
    ConversationWindows,
    HeldOutConversations,
)
from gpt_neox_japanese.training.data.conversations import (
    CONVERSATIONS,
    Conversations,
    prepare_conversations,
    read_counts,
)
from gpt_neox_japanese.training.data.run_data import open_data
from tests.cli.run import assert_refused, run
from tests.tokenizer.template_processes import watch

CODEC = Codec.from_pretrained(default_model_directory())


def write(file: Path, count: int) -> Path:
    lines = [
        {"id": f"{i}", "prompt": f"{i}は何？", "completion": f"{i}です。"} for i in range(count)
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    corpus = write(tmp_path / "talk.jsonl", 60)
    prepare_conversations([corpus], "default", tmp_path / "data", held_out=0.2)
    return tmp_path / "data"


def spoken(conversations: Conversations) -> list[tuple[str, str]]:
    """Each conversation, and what of it is learned."""
    found = []
    for index in range(len(conversations)):
        ids, is_answer = conversations.read(index, 10**6)
        found.append((CODEC.decode(ids), CODEC.decode(ids[is_answer])))
    return found


def test_every_conversation_is_in_one_split(prepared: Path) -> None:
    splits = [spoken(Conversations.open(prepared, name, CODEC)) for name in ("train", "held-out")]
    assert all(splits)
    assert sorted(splits[0] + splits[1]) == sorted(
        (
            f"ユーザー<|separator|>{i}は何？<|separator|>アシスタント<|separator|>{i}です。<|endoftext|>",
            f"{i}です。<|endoftext|>",
        )
        for i in range(60)
    )
    counts = read_counts(prepared, CODEC)
    for split, name in zip(splits, ("train", "held-out"), strict=True):
        assert counts[name].conversations == len(split)
        characters = sum(len(answer) - len("<|endoftext|>") for _, answer in split)
        assert counts[name].answer_characters == characters
    held_out = (prepared / "held-out.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(held_out) == len(splits[1])
    assert (prepared / "chat_template.jinja").is_file()


def test_the_number_of_workers_changes_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    corpora = [write(tmp_path / f"{name}.jsonl", 30) for name in "ab"]
    monkeypatch.setattr("gpt_neox_japanese.corpus.blocks._BYTES_PER_BLOCK", 500)
    monkeypatch.setattr("gpt_neox_japanese.tokenization.encode_corpus._BYTES_WORTH_A_WORKER", 1000)
    for workers in (1, 2):
        prepare_conversations(
            corpora, "default", tmp_path / str(workers), held_out=0.3, workers=workers
        )
    for file in (tmp_path / "1").iterdir():
        assert file.read_bytes() == (tmp_path / "2" / file.name).read_bytes(), file.name


def test_no_process_is_left_that_renders(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = watch(monkeypatch)
    corpus = write(prepared.parent / "talk.jsonl", 3)
    prepare_conversations([corpus], "default", prepared.parent / "again", held_out=0)
    assert len(started) == 2  # the template is tried, and a block is rendered
    open_data(prepared, None).beginning("今日は。")
    assert len(started) == 4
    assert all(process.returncode is not None for process in started)


def test_half_formed_lines_end_the_run_or_are_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "talk.jsonl", 3)
    with corpus.open("a", encoding="utf-8") as file:
        file.write('{"prompt": "猫"}\n{"messages": [{"role": "x", "content": "y"}]}\n')
        file.write(json.dumps({"prompt": [{"role": "tool", "content": "1"}], "completion": "2"}))
    with pytest.raises(CorpusError, match=r"line 4: 'completion' is None"):
        prepare_conversations([corpus], "default", tmp_path / "data", held_out=0)
    made = prepare_conversations(
        [corpus], "default", tmp_path / "data", held_out=0, on_error="skip", resume=True
    )
    assert (made.train.conversations, made.held_out.conversations, made.skipped) == (3, 0, 3)
    skipped = capsys.readouterr().err
    assert "line 5: the last message" in skipped
    assert "line 6: the chat template refuses these messages: the role tool" in skipped
    assert json.loads((tmp_path / "data" / CONVERSATIONS).read_text())["skipped"] == 3


def test_templates_and_outputs_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    corpus = write(tmp_path / "talk.jsonl", 3)
    (tmp_path / "broken.jinja").write_text("{% if %}", encoding="utf-8")
    with pytest.raises(ArgumentError, match="cannot be read"):
        prepare_conversations(
            [corpus], "default", tmp_path / "data", chat_template=tmp_path / "broken.jinja"
        )
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(OutputError):
        prepare_conversations([corpus], "default", tmp_path / "full")
    corpus.write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match="left to train on"):
        prepare_conversations([corpus], "default", tmp_path / "data", on_error="skip")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("broken.jinja", "full", "talk.jsonl")
    ]


def test_the_tokenizers_own_files_come_along_but_no_other_template(tmp_path: Path) -> None:
    shutil.copytree(default_model_directory(), tmp_path / "tokenizer")
    config = tmp_path / "tokenizer" / "tokenizer_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, "mine": 1, "chat_template": "old"}), encoding="utf-8")
    (tmp_path / "new").write_text(default_chat_template(), encoding="utf-8")
    corpus = write(tmp_path / "talk.jsonl", 3)
    prepare_conversations(
        [corpus], tmp_path / "tokenizer", tmp_path / "data", chat_template=tmp_path / "new"
    )
    copied = json.loads((tmp_path / "data" / config.name).read_text(encoding="utf-8"))
    assert copied == {**fields, "mine": 1}
    assert find_chat_template(tmp_path / "data", None) == default_chat_template()


def test_the_command_tells_what_it_made_and_refuses_what_says_nothing(tmp_path: Path) -> None:
    corpus = write(tmp_path / "talk.jsonl", 3)
    with corpus.open("a", encoding="utf-8") as file:
        file.write('{"prompt": "猫"}\n')
    options = ("--conversations", "--tokenizer", "default", "--output", tmp_path / "data")
    for needless in (("--split-lines",), ("--text-field", "text"), ("--merge",), ("--part", "1/2")):
        assert_refused(run("prepare", corpus, *options, *needless), f"leave out {needless[0]}")
    result = run("prepare", corpus, *options, "--on-error", "skip", "--held-out", 0.001)
    assert result.exit_code == 0, result.output
    assert "train: 3 conversations" in result.stdout
    assert "skipped: 1 broken conversation" in result.stdout
    assert "nothing is held out" in result.stderr


def damaged_counts(text: str) -> str:
    return text.replace('"tokens"', '"tokns"', 1)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("train-ids.bin", lambda data: data[:-2], "bytes"),
        ("train-answers.bin", lambda _: b"", "bytes"),
        ("train-ends.bin", lambda data: data[8:16] + data[:8] + data[16:], "do not fit"),
        (CONVERSATIONS, lambda _: b"[]", CONVERSATIONS),
        (CONVERSATIONS, lambda data: data.replace(b'"version": 1', b'"version": 2'), "version 2"),
        (CONVERSATIONS, lambda data: data.replace(b'"tokens"', b'"tokns"'), "'train' is"),
        (CONVERSATIONS, lambda data: data.replace(b'"tokens": ', b'"tokens": -'), "'train' is"),
    ],
)
def test_what_is_damaged_is_refused(prepared: Path, name: str, change: Any, said: str) -> None:
    file = prepared / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=said):
        Conversations.open(prepared, "train", CODEC)


def test_ids_that_do_not_exist_are_refused(prepared: Path) -> None:
    file = prepared / "train-ids.bin"
    file.write_bytes(b"\xff\xff" + file.read_bytes()[2:])
    with pytest.raises(DataError, match="65535"):
        Conversations.open(prepared, "train", CODEC).read(0, 10)


def test_ends_whose_differences_come_round_are_refused() -> None:
    ends = np.array([2**62, -(2**63), -(2**62), 4], np.int64)
    with np.errstate(over="ignore"):
        assert (np.diff(ends, prepend=0) > 0).all()
    with pytest.raises(DataError, match="do not fit"):
        Conversations(np.arange(4), np.ones(4, np.uint8), ends, 10)


# ---- Windows -------------------------------------------------------------------------------------


def conversations_of(lengths: list[int]) -> Conversations:
    """Conversation i has the ids i * 100 + 1, + 2, …; its second half is learned."""
    ids = [i * 100 + 1 + k for i, length in enumerate(lengths) for k in range(length)]
    answers = [int(2 * k >= length) for length in lengths for k in range(length)]
    ends = np.cumsum(np.array(lengths, np.int64))
    return Conversations(np.array(ids), np.array(answers, np.uint8), ends, 10**6)


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
    st.integers(4, 24),
    st.integers(0, 2**32 - 1),
)
def test_an_epoch_shows_each_conversation_once_and_whole(
    lengths: list[int], size: int, seed: int
) -> None:
    conversations = conversations_of(lengths)
    useful = [i for i in range(len(lengths)) if conversations.read(i, size)[1].any()]
    if not useful:
        with pytest.raises(DataError, match="--sequence-length"):
            ConversationWindows(conversations, size, 1, seed, filler=0)
        return
    windows = ConversationWindows(conversations, size, 10**6, seed, filler=0)
    seen = []
    for number in range(windows.windows_per_epoch):
        item = windows[number]
        assert {name: len(item[name]) for name in ("input_ids", "labels", "position_ids")} == {
            **dict.fromkeys(("input_ids", "labels", "position_ids"), size)
        }
        ids, positions = item["input_ids"].numpy(), item["position_ids"].numpy()
        begins = np.flatnonzero(positions == 0)
        for begin, end in zip(begins, [*begins[1:], size], strict=True):
            part = ids[begin:end]
            if not part.any():
                continue  # filler
            index = int(part[0]) // 100
            expected, is_answer = conversations.read(index, size)
            assert part.tolist() == expected.tolist()
            labels = np.where(is_answer, expected, -100)
            assert item["labels"][begin:end].tolist() == labels.tolist()
            seen.append(index)
        assert (item["labels"][ids == 0] == -100).all()
    assert sorted(seen) == useful


def test_conversations_without_an_answer_are_in_no_window() -> None:
    answers = np.array([0, 0, 1, 0, 0, 0, 0, 0, 5], np.uint8)
    conversations = Conversations(np.arange(9), answers, np.array([1, 3, 5, 9]), 10)
    assert conversations.have_answers(4).tolist() == [False, True, False, True]
    assert conversations.have_answers(1).tolist() == [False] * 4
    assert conversations_of([]).have_answers(4).tolist() == []
    windows = ConversationWindows(conversations, 4, 10, 1, filler=0)
    assert all((windows[i]["labels"] != -100).any() for i in range(10))


def test_items_depend_on_seed_and_number_alone() -> None:
    conversations = conversations_of([5, 9, 3, 7, 4, 6])
    one, other = (ConversationWindows(conversations, 12, n, 7, filler=0) for n in (50, 40))
    expected = [one[i] for i in range(40)]
    for number in (39, 3, 17, 0, 39):
        for name, tensor in other[number].items():
            assert torch.equal(tensor, expected[number][name])
    different = ConversationWindows(conversations, 12, 40, 8, filler=0)
    assert any(
        not torch.equal(different[i]["input_ids"], expected[i]["input_ids"]) for i in range(10)
    )


def test_held_out_conversations_are_spread_over_what_is_allowed() -> None:
    conversations = conversations_of([6] * 40)
    whole = HeldOutConversations(conversations, 12, 10**6, filler=0)
    assert len(whole) == 20
    some = HeldOutConversations(conversations, 12, 30, filler=0)
    firsts = {int(some[i]["input_ids"][0]) // 100 for i in range(len(some))}
    assert len(some) == 5
    assert max(firsts) >= 30
    nothing = HeldOutConversations(conversations_of([]), 12, 60, filler=0)
    assert len(nothing) == 0
    with pytest.raises(DataError, match="no held-out conversation has an answer within 3 tokens"):
        HeldOutConversations(conversations, 3, 60, filler=0)
