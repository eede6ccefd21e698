from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from gpt_neox_japanese.cli.evaluate import command
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.cli.run import run
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary


def save_model(directory: Path, window: int) -> Path:
    """A model that gives every token the same probability."""
    codec = Codec(vocabulary([*"猫犬とがいた。"]))
    model = small_model(codec, max_position_embeddings=window)
    torch.nn.init.zeros_(model.embed_out.weight)
    model.save_pretrained(directory)
    codec.save(directory)
    return directory


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", 16)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text('{"text": "猫犬"}\n{"text": "犬"}\n', encoding="utf-8")
    return tmp_path / "a.jsonl"


def test_help_names_every_kind_of_corpus_that_is_read() -> None:
    shown = run("evaluate", "--help").stdout
    assert all(kind in shown for kind in (".txt", ".jsonl", ".gz", ".zst", ".parquet"))


def test_json_has_every_number(model: Path, texts: Path) -> None:
    result = CliRunner().invoke(
        command, ["--model", str(model), "--data", str(texts), "--json"], catch_exceptions=False
    )
    found = json.loads(result.stdout)
    assert found["perplexity"] == pytest.approx(len(Codec.load(model).vocabulary), rel=1e-5)
    assert found["documents"] == 2
    assert (found["characters"], found["bytes"], found["tokens"]) == (3, 9, 5)
    assert found["bits_per_character"] == pytest.approx(3 * found["bits_per_byte"])


def test_json_of_a_diverged_model_is_json(model: Path, texts: Path) -> None:
    network = GPTNeoXJapaneseForCausalLM.from_pretrained(model)
    torch.nn.init.normal_(network.embed_out.weight, std=1e5)
    network.save_pretrained(model)
    printed = run("evaluate", "--model", model, "--data", texts, "--json").stdout
    found = json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["perplexity"] is None
    assert found["bits_per_character"] > 1000
    assert "inf" in run("evaluate", "--model", model, "--data", texts).stdout


def test_limit_counts_documents_over_all_files(model: Path, texts: Path) -> None:
    result = CliRunner().invoke(
        command,
        ["--model", str(model), "--data", str(texts), "--data", str(texts), "--limit", "3"],
        catch_exceptions=False,
    )
    lines = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["documents"] == "3"
    assert lines["characters"] == "5"
    assert set(lines) >= {"bits per character", "bits per byte", "perplexity", "tokens"}


def test_cloze_questions_are_asked_of_the_texts_if_the_model_can_read_them(
    model: Path, tmp_path: Path
) -> None:
    sentences = [f"{'犬' * n}と{'猫' * (30 - n)}がいた。" for n in range(1, 30)]
    (tmp_path / "a.txt").write_text("".join(sentences) * 20, encoding="utf-8")
    options = ["--data", tmp_path / "a.txt", "--cloze", 3, "--json"]
    larger = save_model(tmp_path / "larger", 64)
    found = json.loads(run("evaluate", "--model", larger, *options).stdout)
    assert found["questions"] == 3
    assert found["accuracy"] in (0, 1 / 3, 2 / 3, 1)
    assert found["chance"] == 0.25
    assert 0 <= found["low"] <= found["accuracy"] <= found["high"] <= 1
    refused = run("evaluate", "--model", model, *options)
    assert refused.exit_code == 2
    assert "a continuation has 35 tokens, and the model reads 16" in refused.stderr


def test_several_models_stand_side_by_side(model: Path, texts: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other", 8)
    command = ("evaluate", "--model", model, "--model", other, "--data", texts)
    head, *rows = run(*command).stdout.splitlines()
    assert head.split() == ["model", "other"]
    table = {" ".join(row.split()[:-2]): row.split()[-2:] for row in rows}
    assert table["documents"] == ["2", "2"]
    assert table["bits per character"][0] == table["bits per character"][1]
    lines = [json.loads(line) for line in run(*command, "--json").stdout.splitlines()]
    assert [line["model"] for line in lines] == [str(model), str(other)]
    missing = run("evaluate", "--model", model, "--model", tmp_path / "none", "--data", texts)
    assert missing.exit_code == 2
    assert not missing.stdout
