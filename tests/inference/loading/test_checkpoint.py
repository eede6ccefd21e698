from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from tests.tokenizer.small import vocabulary


@pytest.fixture
def broken(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(checkpoint, tmp_path / "broken"))


def recommend(directory: Path, **options: object) -> Path:
    (directory / "generation_config.json").write_text(json.dumps({"do_sample": True, **options}))
    return directory


def test_recommended_sampling_is_taken_over(broken: Path) -> None:
    fallback = Checkpoint.open(broken).sampling_params
    assert (fallback.temperature, fallback.top_p) == (0.8, 0.95)
    chosen = Checkpoint.open(recommend(broken, temperature=0.5, top_k=None)).sampling_params
    assert (chosen.temperature, chosen.top_k) == (0.5, 0)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
def test_a_text_ends_before_whatever_id_the_model_names(broken: Path, file: str) -> None:
    codec = Checkpoint.open(broken).codec
    (cat,) = codec.encode("猫")
    (broken / "generation_config.json").unlink(missing_ok=True)
    content = json.loads((broken / "config.json").read_text())
    content = {**(content if file == "config.json" else {}), "eos_token_id": [cat, len(codec), -1]}
    (broken / file).write_text(json.dumps(content))
    assert Checkpoint.open(broken).stop_ids == {cat, codec.eot_token}
    with TextGenerator.from_pretrained(broken, threads=1) as generator:
        options: dict[str, Any] = {"temperature": 0, "max_new_tokens": 3, "logit_bias": {cat: 1e4}}
        (first,) = generator.generate_details("猫は", **options)
        (later,) = generator.generate_details("猫は", min_new_tokens=2, **options)
    assert (first.text, first.finish_reason) == ("", "stop")
    assert (len(later.token_ids), later.finish_reason) == (2, "stop")
    assert "猫" not in later.text


def test_senseless_recommendations_are_refused(broken: Path) -> None:
    with pytest.raises(CheckpointError, match="temperature is 'hot'"):
        Checkpoint.open(recommend(broken, temperature="hot"))
    with pytest.raises(CheckpointError, match=r"generation_config\.json.*top_p is 7"):
        Checkpoint.open(recommend(broken, top_p=7))


def test_missing_directory_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        Checkpoint.open(tmp_path / "nowhere")


def test_vocabulary_of_another_model_is_refused(broken: Path) -> None:
    vocabulary(["猫"]).save(broken)
    with pytest.raises(CheckpointError, match="ids, its vocabulary"):
        Checkpoint.open(broken)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_broken_config_is_named(broken: Path, content: str) -> None:
    (broken / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(broken)


def test_missing_config_is_named(broken: Path) -> None:
    (broken / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Checkpoint.open(broken)
