"""From conversations to a model that answers in the terminal."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.training.data.conversations import prepare_conversations
from gpt_neox_japanese.training.data.run_data import ConversationData, open_data
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.cli.run import run

KNOWN = {"猫は何と鳴く？": "にゃあ。", "犬は何と鳴く？": "わん。", "空は何色？": "青です。"}
SETTINGS = Settings(
    sequence_length=48,
    batch_size=2,
    steps=120,
    learning_rate=0.01,
    dtype="fp32",
    save_dtype="fp32",
    log_every=20,
    eval_every=60,
    save_every=120,
    sample_prompt=("猫は何と鳴く？",),
    sample_tokens=8,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("talk")
    lines = [
        json.dumps({"id": f"{copy}-{question}", "prompt": question, "completion": answer})
        for copy in range(8)
        for question, answer in KNOWN.items()
    ]
    (directory / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    prepare_conversations([directory / "talk.jsonl"], "default", directory / "data", held_out=0.2)
    return directory / "data"


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "model"
    assert train(data, output, SETTINGS, Architecture(32, 2, 2))
    return output


def test_answers_are_learned_and_their_end(model: Path) -> None:
    questions = "\n/reset\n".join(KNOWN)
    result = run("chat", "--model", model, "--temperature", 0, "--threads", 1, stdin=questions)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == list(KNOWN.values())


def test_what_is_measured_are_answers(model: Path) -> None:
    log = [json.loads(line) for line in (model / "loss.jsonl").read_text().splitlines()]
    name = "held_out_bits_per_character"
    measured = [line[name] for line in log if name in line]
    assert measured[0] > 3
    assert measured[-1] < 0.1  # questions cannot be predicted so well
    page = (model / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\(\d+ of its \d+ answer tokens\)", page)
    assert "neox-ja evaluate" not in page


def test_an_epoch_sees_every_conversation_once(data: Path, tmp_path: Path) -> None:
    opened = open_data(data, None)
    whole = dataclasses.replace(SETTINGS, steps=None, epochs=1, batch_size=1, sample_prompt=())
    assert train(data, tmp_path / "model", whole, Architecture(8, 1, 1))
    last = json.loads((tmp_path / "model" / "loss.jsonl").read_text().splitlines()[-1])
    assert last["epoch"] == 1
    assert isinstance(opened, ConversationData)
    assert last["tokens"] == opened.tokens_per_epoch(48) > opened.train.num_tokens


def test_a_few_conversations_are_seen_often_without_being_told(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = dataclasses.replace(SETTINGS, steps=None, batch_size=None, sample_prompt=())
    assert train(data, tmp_path / "model", begun, Architecture(8, 1, 1))
    steps = json.loads((tmp_path / "model" / "train.json").read_text())["steps"]
    assert 100 <= steps <= 200
    assert re.search(rf"{steps} steps of .* tokens, \d+ epochs", capsys.readouterr().err)


def test_what_encodes_texts_anew_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="--subword-dropout"):
        train(
            data,
            tmp_path / "model",
            Settings(subword_dropout=0.1, steps=1, sequence_length=48, dtype="fp32"),
            Architecture(32, 2, 2),
        )
