from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pytest
import torch
from safetensors.torch import load_file

from gpt_neox_japanese.errors import (
    CheckpointError,
    DataError,
    NeoXJapaneseError,
    OutputError,
    TrainingError,
)
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.checkpoints import manager
from gpt_neox_japanese.training.report.callbacks import InterruptCallback
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
    sampling = json.loads((run / "generation_config.json").read_text(encoding="utf-8"))
    assert sampling["do_sample"] is True
    assert sampling["repetition_penalty"] > 1
    assert not list(run.glob(".*"))


def test_the_finished_model_is_the_last_checkpoint_rounded(run: Path) -> None:
    exact = load_file(run / "checkpoint-6" / "model.safetensors")
    for name, weight in load_file(run / "model.safetensors").items():
        assert torch.equal(weight, exact[name].bfloat16()), name
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(run)
    assert model.dtype == torch.bfloat16


def test_the_loss_log_tells_steps_losses_rates_and_held_out_bits(run: Path) -> None:
    losses = [line for line in log(run) if "loss" in line]
    assert [line["step"] for line in losses] == [1, 2, 4, 6]
    assert [line["tokens"] for line in losses] == [128, 256, 512, 768]
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert all(line["tokens_per_second"] > 0 for line in losses)
    held_out = [line for line in log(run) if "held_out_bits_per_character" in line]
    assert [line["step"] for line in held_out] == [0, 3, 6]
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
    steps = [line["step"] for line in log(resumed) if "dtype" not in line]
    assert steps == [line["step"] for line in log(run) if "dtype" not in line]
    seconds = [line["seconds"] for line in log(resumed)]
    assert seconds == sorted(seconds)


def test_a_resumed_run_logs_measures_and_saves_as_often_as_it_is_told_to(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoint-6")
    settings = dataclasses.replace(SETTINGS, log_every=1, eval_every=1, save_every=1)
    assert train(prepared, resumed, settings, SHAPE, resume=True)
    for kind in ("loss", "held_out_bits_per_character"):
        assert [line["step"] for line in log(resumed) if kind in line][-3:] == [4, 5, 6]
    assert {path.name for path in resumed.glob("checkpoint-*")} == {"checkpoint-5", "checkpoint-6"}


def test_training_on_keeps_the_model_it_started_from(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    settings = Settings(sequence_length=16, batch_size=2, steps=1, learning_rate=0.0, save_every=9)
    assert train(prepared, tmp_path / "more", settings, run)
    expected = load_file(run / "model.safetensors")
    for name, weight in load_file(tmp_path / "more" / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


def test_ctrl_c_saves_and_a_resume_finishes(
    run: Path,
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGINT)  # a shell's background job has it ignored
    with monkeypatch.context() as patch:
        enter = InterruptCallback.__enter__

        def pressed(interruption: InterruptCallback) -> InterruptCallback:
            enter(interruption)
            signal.raise_signal(signal.SIGINT)
            return interruption

        patch.setattr(InterruptCallback, "__enter__", pressed)
        assert not train(prepared, tmp_path / "run", SETTINGS, SHAPE)
    assert "stopping after this step" in capfd.readouterr().err
    assert (tmp_path / "run" / "checkpoint-1").is_dir()
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert signal.getsignal(signal.SIGINT) is before
    assert train(prepared, tmp_path / "run", SETTINGS, SHAPE, resume=True)
    expected = load_file(run / "model.safetensors")
    for name, weight in load_file(tmp_path / "run" / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


def test_a_used_directory_needs_resume_and_resume_needs_a_checkpoint(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match="continue its run with --resume"):
        train(prepared, run, SETTINGS, SHAPE)
    with pytest.raises(DataError, match="no checkpoint to resume from; remove it, and run without"):
        train(prepared, tmp_path / "none", SETTINGS, SHAPE, resume=True)


def test_of_two_runs_in_one_directory_the_second_is_refused(
    run: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = shutil.copytree(run, tmp_path / "run")
    before = (begun / "loss.jsonl").read_bytes()
    longer = dataclasses.replace(SETTINGS, steps=SETTINGS.steps + 1)
    refusals: list[object] = []

    def begin_another(*_: object) -> None:
        monkeypatch.undo()
        with pytest.raises(OutputError, match="another run is writing") as refusal:
            train(prepared, begun, longer, SHAPE, resume=True)
        refusals.append(refusal)

    monkeypatch.setattr("gpt_neox_japanese.training.run.record_data", begin_another)
    assert train(prepared, begun, longer, SHAPE, resume=True)
    assert len(refusals) == 1
    assert (begun / "loss.jsonl").read_bytes().startswith(before)
    assert not (begun / ".train.lock").exists()


def test_a_model_with_another_vocabulary_or_a_short_window_is_refused(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    Codec(vocabulary(["猫"])).save(other)
    with pytest.raises(DataError, match="prepared with vocabulary"):
        train(prepared, tmp_path / "a", SETTINGS, other)
    (other / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"a model is a directory with config\.json"):
        train(prepared, tmp_path / "a", SETTINGS, other)
    long = Settings(sequence_length=64)
    with pytest.raises(DataError, match="reads at most 32 tokens, --sequence-length is 64"):
        train(prepared, tmp_path / "b", long, run)


def test_a_run_that_is_refused_leaves_nothing(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training tokens do not fill a window of 1000000"):
        train(prepared, tmp_path / "run", Settings(sequence_length=10**6), SHAPE)
    assert not (tmp_path / "run").exists()


def test_warm_up_and_decay_must_fit_into_the_run() -> None:
    with pytest.raises(NeoXJapaneseError, match="must not exceed 1"):
        Settings(warmup=0.6, decay=0.5)


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_windows(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GPTNeoXJapaneseForCausalLM.forward
    calls = iter(range(100))

    def broken(self: GPTNeoXJapaneseForCausalLM, *args: object, **kwargs: object) -> object:
        output = real(self, *args, **kwargs)  # type: ignore[arg-type]
        # The second pass of the fifth step, after the two by which the speed is estimated.
        if self.training and next(calls) == 11:
            output.loss = output.loss * torch.nan
        return output

    monkeypatch.setattr(GPTNeoXJapaneseForCausalLM, "forward", broken)
    settings = dataclasses.replace(SETTINGS, batch_size=2, gradient_accumulation=2)
    with pytest.raises(TrainingError, match=r"step 5: the loss is nan; .* windows 18, 19 of") as no:
        train(prepared, tmp_path / "run", settings, SHAPE)
    assert "checkpoint-3 was saved before it" in str(no.value)
    exact = load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")
    assert all(weight.isfinite().all() for weight in exact.values())


def test_a_full_disk_stops_the_run_which_a_resume_finishes(
    run: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        if (tmp_path / "run" / "checkpoint-3").exists():
            raise OSError(28, "No space left on device")
        real(*_)

    real = manager.save_file
    monkeypatch.setattr(manager, "save_file", full)
    with pytest.raises(TrainingError, match=r"No space left.*checkpoint-3 is complete: make room"):
        train(prepared, tmp_path / "run", SETTINGS, SHAPE)
    monkeypatch.undo()
    assert train(prepared, tmp_path / "run", SETTINGS, SHAPE, resume=True)
    assert losses(tmp_path / "run") == losses(run)


def losses(run: Path) -> list[object]:
    lines = (line for line in log(run) if "dtype" not in line)  # one for each part of the run
    return [(line["step"], line.get("loss"), line.get("grad_norm")) for line in lines]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_stopped_between_two_lines_of_the_log_continues_bit_for_bit(
    prepared: Path, tmp_path: Path, optimizer: Literal["muon", "adamw"]
) -> None:
    settings = dataclasses.replace(
        SETTINGS, optimizer=optimizer, log_every=4, save_every=3, schedule="cosine", steps=8
    )
    assert train(prepared, tmp_path / "whole", settings, SHAPE)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in (6, 8):
        shutil.rmtree(tmp_path / "cut" / f"checkpoint-{step}", ignore_errors=True)
    with pytest.raises(DataError, match="no checkpoint"):  # only the two newest were kept
        train(prepared, tmp_path / "cut", settings, SHAPE, resume=True)
    shutil.copytree(tmp_path / "whole" / "checkpoint-6", tmp_path / "cut" / "checkpoint-6")
    assert train(prepared, tmp_path / "cut", settings, SHAPE, resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_resumed_run_must_be_the_same_run(run: Path, prepared: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(SETTINGS, learning_rate=0.5)
    with pytest.raises(DataError, match=r"started with learning_rate 0\.01, now it is 0\.5"):
        train(prepared, run, other, SHAPE, resume=True)
    with pytest.raises(DataError, match="started with layers 2, now it is 1"):
        train(prepared, run, SETTINGS, Architecture(16, 1, 2), resume=True)
    data = Path(shutil.copytree(prepared, tmp_path / "data"))
    manifest = data / "manifest.json"
    text = manifest.read_text(encoding="utf-8").replace('"works.jsonl"', '"other.jsonl"')
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="other data"):
        train(data, run, SETTINGS, SHAPE, resume=True)


def test_a_run_leaves_a_page_a_picture_and_samples_which_a_resumed_one_does_not_double(
    prepared: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(
        SETTINGS, sample_prompt=("吾輩は", ""), sample_tokens=5, gradient_checkpointing=True
    )
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "| Steps | 6 |" in page
    assert "bits per character" in page
    assert "> 吾輩は" in page
    ElementTree.parse(tmp_path / "run" / "loss.svg")
    samples = tmp_path / "run" / "samples.jsonl"
    lines = samples.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 3, 6]
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    samples.write_text("\n".join(lines)[:-4], encoding="utf-8")  # a kill cuts a line short
    assert train(prepared, tmp_path / "run", settings, SHAPE, resume=True)
    assert samples.read_text(encoding="utf-8").splitlines() == lines
    assert train(prepared, tmp_path / "run", settings, SHAPE, resume=True)  # nothing is left to do
    assert "> 吾輩は" in (tmp_path / "run" / "report.md").read_text(encoding="utf-8")


def test_samples_and_recomputed_activations_change_no_loss(
    run: Path, prepared: Path, tmp_path: Path
) -> None:
    settings = dataclasses.replace(
        SETTINGS, sample_prompt=("吾輩は",), sample_tokens=5, gradient_checkpointing=True
    )
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    found, expected = (
        [line["loss"] for line in log(where) if "loss" in line] for where in (tmp_path / "run", run)
    )
    assert found == pytest.approx(expected, rel=1e-6)
