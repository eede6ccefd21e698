from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gpt_neox_japanese.errors import DataError, NeoXJapaneseError
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.reporting import Interruption
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.tokenizer.small import vocabulary

SHAPE = Architecture(hidden_size=16, layers=2, heads=2)
SETTINGS = Settings(
    sequence_length=32,
    batch_size=4,
    steps=6,
    learning_rate=1e-2,
    dtype="fp32",
    log_every=2,
    eval_every=3,
    save_every=3,
)


@pytest.fixture(scope="module")
def run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of six steps with checkpoints at 3 and 6."""
    output = tmp_path_factory.mktemp("runs") / "run"
    assert train(prepared, output, SETTINGS, SHAPE)
    return output


def log(run: Path) -> list[dict[str, float]]:
    lines = (run / "loss.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_a_run_leaves_a_complete_checkpoint_in_bf16(run: Path, prepared: Path) -> None:
    for name in ("vocab.txt", "emoji.json", "tokenizer_config.json"):
        assert (run / name).read_bytes() == (prepared / name).read_bytes()
    weights = load_file(run / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    # Tied: the embedding is stored once.
    assert len([name for name in weights if "embed" in name]) == 1
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    assert config["use_cache"] is True
    assert (run / "generation_config.json").is_file()
    assert not list(run.glob(".*"))


def test_the_finished_model_is_the_last_state_rounded(run: Path) -> None:
    exact = load_file(run / "checkpoint-6" / "model.safetensors")
    for name, weight in load_file(run / "model.safetensors").items():
        assert torch.equal(weight, exact[name].bfloat16()), name
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(run)
    assert model.dtype == torch.bfloat16


def test_the_loss_log_tells_steps_losses_rates_and_held_out_bits(run: Path) -> None:
    losses = [line for line in log(run) if "loss" in line]
    assert [line["step"] for line in losses] == [2, 4, 6]
    assert [line["tokens"] for line in losses] == [256, 512, 768]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert all(line["tokens_per_second"] > 0 for line in losses)
    held_out = [line for line in log(run) if "held_out_bits_per_character" in line]
    assert [line["step"] for line in held_out] == [3, 6]
    assert 0 < held_out[-1]["held_out_bits_per_character"] < 10


def test_the_settings_are_recorded(run: Path) -> None:
    record = json.loads((run / "train.json").read_text(encoding="utf-8"))
    assert (record["hidden_size"], record["layers"], record["heads"]) == (16, 2, 2)
    assert (record["steps"], Path(record["data"]).name) == (6, "prepared")


def test_a_resumed_run_ends_with_the_same_weights(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoint-6")
    (resumed / "model.safetensors").unlink()
    assert train(prepared, resumed, SETTINGS, SHAPE, resume=True)
    expected = load_file(run / "model.safetensors")
    for name, weight in load_file(resumed / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name
    steps = [line["step"] for line in log(resumed)]
    assert steps == [line["step"] for line in log(run)]


def test_training_on_keeps_the_model_it_started_from(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    settings = Settings(sequence_length=16, batch_size=2, steps=1, learning_rate=0.0, save_every=9)
    assert train(prepared, tmp_path / "more", settings, run)
    expected = load_file(run / "model.safetensors")
    for name, weight in load_file(tmp_path / "more" / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


def test_ctrl_c_saves_and_a_resume_finishes(
    run: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        enter = Interruption.__enter__

        def pressed(interruption: Interruption) -> Interruption:
            enter(interruption)
            signal.raise_signal(signal.SIGINT)
            return interruption

        patch.setattr(Interruption, "__enter__", pressed)
        assert not train(prepared, tmp_path / "run", SETTINGS, SHAPE)
    assert (tmp_path / "run" / "checkpoint-1").is_dir()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(prepared, tmp_path / "run", SETTINGS, SHAPE, resume=True)
    expected = load_file(run / "model.safetensors")
    for name, weight in load_file(tmp_path / "run" / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


def test_a_used_directory_needs_resume_and_resume_needs_a_checkpoint(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="continue its run with --resume"):
        train(prepared, run, SETTINGS, SHAPE)
    with pytest.raises(DataError, match="no checkpoint to resume from"):
        train(prepared, tmp_path / "none", SETTINGS, SHAPE, resume=True)


def test_a_model_with_another_vocabulary_or_a_short_window_is_refused(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    Codec(vocabulary(["猫"])).save(other)
    with pytest.raises(DataError, match="prepared with vocabulary"):
        train(prepared, tmp_path / "a", SETTINGS, other)
    long = Settings(sequence_length=64)
    with pytest.raises(DataError, match="reads at most 32 tokens, --sequence-length is 64"):
        train(prepared, tmp_path / "b", long, run)


def test_warm_up_and_decay_must_fit_into_the_run() -> None:
    with pytest.raises(NeoXJapaneseError, match="must not exceed 1"):
        Settings(warmup=0.6, decay=0.5)
