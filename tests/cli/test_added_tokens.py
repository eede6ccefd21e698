"""All commands agree about a model with added tokens and padded rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from gpt_neox_japanese import GPTNeoXJapaneseTokenizer
from gpt_neox_japanese.files.model_directory import TOKENIZER_FILES
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.added_tokens import USER, WORD, save_model
from tests.cli.run import assert_refused, run

EMBEDDING = "gpt_neox_japanese.embed_in.weight"
TEXT = f"吾輩は{WORD} 猫{USER}。"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "padded"
    directory.mkdir()
    save_model(directory)
    return directory


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("corpus") / "works.jsonl"
    lines = [json.dumps({"id": str(n), "text": TEXT * (n + 1)}) for n in range(20)]
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def ids_of_class(model: Path, text: str) -> list[int]:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(model)
    ids: list[int] = tokenizer(text, split_special_tokens=True)["input_ids"]
    return ids


def test_tokenize_and_detokenize_are_the_class(model: Path) -> None:
    ids = ids_of_class(model, TEXT)
    shown = json.loads(run("tokenize", "--tokenizer", model, "--json", TEXT).stdout)
    assert shown["ids"] == ids
    assert WORD in shown["tokens"]
    assert len(shown["offsets"]) == len(ids)
    result = run("detokenize", "--tokenizer", model, *ids)
    assert result.stdout == TEXT.replace(f"{WORD} ", WORD) + "\n"  # it takes the space after it
    user = Codec.load(model).token_to_id(USER)
    assert run("detokenize", "--tokenizer", model, user).stdout == USER + "\n"
    assert_refused(run("detokenize", "--tokenizer", model, user + 1), f"ids are 0 to {user}")


def test_vocab_show_counts_added_tokens(model: Path, corpus: Path) -> None:
    shown = json.loads(run("vocab", "show", "--tokenizer", model, "--json", corpus).stdout)
    codec = Codec.load(model)
    assert shown["ids"] == len(codec) == len(codec.vocabulary) + 2
    assert shown["fingerprint"] == codec.fingerprint != codec.vocabulary.fingerprint
    assert shown["texts"]["kind_shares"]["added tokens"] > 0


def test_tokenized_files_have_the_ids_of_the_class(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    assert (
        run("tokenize", corpus, "--tokenizer", model, "--output", tmp_path / "ids").exit_code == 0
    )
    ids, bounds = (np.load(tmp_path / "ids" / f"{name}.npy") for name in ("ids", "bounds"))
    assert ids[bounds[0] : bounds[1]].tolist() == ids_of_class(model, TEXT)


def test_a_prepared_corpus_trains_the_model_and_its_rows_stay(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    data, output = tmp_path / "data", tmp_path / "run"
    result = run("prepare", corpus, "--tokenizer", model, "--output", data, "--held-out", 0.2)
    assert result.exit_code == 0, result.output
    manifest = json.loads((data / "manifest.json").read_text())
    codec = Codec.load(model)
    assert manifest["vocabulary_size"] == len(codec)
    assert manifest["vocabulary_fingerprint"] == codec.fingerprint == Codec.load(data).fingerprint
    assert codec.token_to_id(WORD) in np.fromfile(data / "train-00000.bin", "<u2")

    options = ["--steps", 2, "--sequence-length", 16, "--batch-size", 2, "--dtype", "fp32"]
    samples = ["--sample-prompt", WORD, "--eval-every", 1, "--sample-tokens", 20]
    result = run(
        "train", "--data", data, "--init-from", model, "--output", output, *options, *samples
    )
    assert result.exit_code == 0, result.output
    rows = [load_file(d / "model.safetensors")[EMBEDDING].shape[0] for d in (model, output)]
    assert rows == [json.loads((output / "config.json").read_text())["vocab_size"]] * 2
    assert rows[0] > len(codec)
    assert Codec.load(output).fingerprint == codec.fingerprint
    assert run("generate", "猫", "--model", output, "--max-new-tokens", 3).exit_code == 0


def test_a_corpus_prepared_without_the_added_tokens_is_refused(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    Codec(Codec.load(model).vocabulary, legacy=False).save(plain)
    data = tmp_path / "data"
    assert run("prepare", corpus, "--tokenizer", plain, "--output", data).exit_code == 0
    result = run("train", "--data", data, "--init-from", model, "--output", tmp_path / "run")
    assert_refused(result, "prepare the corpus again with --tokenizer")


@pytest.mark.parametrize("target", ["bf16", "int8", "int4"])
def test_a_converted_model_keeps_its_tokenizer_and_writes(
    model: Path, corpus: Path, tmp_path: Path, target: str
) -> None:
    output = tmp_path / "converted"
    result = run("convert", model, "--to", target, "--output", output)
    assert result.exit_code == 0, result.output
    for name in TOKENIZER_FILES:
        assert (output / name).is_file() == (model / name).is_file()
    assert Codec.load(output).fingerprint == Codec.load(model).fingerprint
    result = run("generate", WORD, "--model", output, "--json", "--seed", 1)
    assert result.exit_code == 0, result.output
    assert max(json.loads(result.stdout)["token_ids"]) < len(Codec.load(model))
    result = run("evaluate", "--model", output, "--data", corpus, "--limit", 2, "--json")
    assert result.exit_code == 0, result.output


def test_files_of_earlier_versions_are_carried_along(
    model: Path, corpus: Path, tmp_path: Path
) -> None:
    old, data = tmp_path / "old", tmp_path / "data"
    Codec(Codec.load(model).vocabulary, legacy=False).save(old)
    codec = Codec.load(model)
    added = {token: codec.token_to_id(token) for token in (WORD, USER)}
    (old / "added_tokens.json").write_text(json.dumps(added))
    (old / "special_tokens_map.json").write_text(json.dumps({"sep_token": USER}))
    assert run("prepare", corpus, "--tokenizer", old, "--output", data).exit_code == 0
    assert Codec.load(data).fingerprint == Codec.load(old).fingerprint
    assert Codec.load(data).special_ids == Codec.load(old).special_ids
