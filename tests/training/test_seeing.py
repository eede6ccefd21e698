"""What a run tells: figures that are true, on the way and at the end."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt_neox_japanese.corpus import read_documents
from gpt_neox_japanese.errors import NeoXJapaneseError
from gpt_neox_japanese.evaluation.bits_per_character import bits_per_character
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.report.mfu import MfuMeter
from gpt_neox_japanese.training.report.model_card import model_card
from gpt_neox_japanese.training.report.page import (
    RunSummary,
    measurements,
    read_log,
    read_samples,
    write_report,
)
from gpt_neox_japanese.training.report.plot import draw_curves
from gpt_neox_japanese.training.report.progress import Progress
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.cli.run import assert_refused, run

SHAPE = Architecture(hidden_size=16, layers=2, heads=2)
SETTINGS = Settings(
    sequence_length=32, batch_size=4, steps=4, learning_rate=1e-2, dtype="fp32", save_dtype="fp32"
)


def held_out(output: Path) -> dict[int, float]:
    name = "held_out_bits_per_character"
    return {line["step"]: line[name] for line in read_log(output / "loss.jsonl") if name in line}


def test_the_measurement_of_a_run_is_that_of_evaluate(prepared: Path, tmp_path: Path) -> None:
    assert train(prepared, tmp_path / "run", SETTINGS, SHAPE)
    data = prepared / "held-out.jsonl"
    result = run("evaluate", "--model", tmp_path / "run", "--data", data, "--json")
    expected = json.loads(result.stdout)["bits_per_character"]
    assert held_out(tmp_path / "run")[4] == pytest.approx(expected, rel=1e-4)
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert f"{expected:.3f}" in page
    assert "all of it, as `neox-ja evaluate` reads it" in page


def test_rows_of_the_head_that_are_no_tokens_are_not_measured(
    prepared: Path, tmp_path: Path
) -> None:
    codec = Codec.load(prepared)
    config = GPTNeoXJapaneseConfig(
        vocab_size=len(codec) + 64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=codec.eot_token,
        eos_token_id=codec.eot_token,
    )
    model = GPTNeoXJapaneseForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    for name in ("vocab.txt", "emoji.json"):
        shutil.copy(prepared / name, tmp_path / "base" / name)
    settings = dataclasses.replace(SETTINGS, steps=1, learning_rate=0.0)
    assert train(prepared, tmp_path / "run", settings, tmp_path / "base")
    texts = [each.text for each in read_documents([prepared / "held-out.jsonl"])]
    expected = bits_per_character(model, codec, texts).bits_per_character
    assert held_out(tmp_path / "run")[1] == pytest.approx(expected, rel=1e-4)


def test_a_run_shows_start_first_step_and_samples_in_plain_lines(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = dataclasses.replace(
        SETTINGS, sample_prompt=("吾輩は",), sample_tokens=5, log_every=4
    )
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    shown = capsys.readouterr().err
    assert re.search(r"^step 0/4: held-out text [\d.]+ bits per character\n  吾輩は", shown, re.M)
    assert re.search(r"^step 1/4: loss [\d.]+, tokens/s [\d,]+, MFU \d+%, about", shown, re.M)
    assert re.search(r"^held-out text: [\d.]+ bits .*\nthe curve is in .*report\.md$", shown, re.M)
    assert "\r" not in shown.replace("Writing model shards", "").split("step 0")[0]
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    for row in ("| Time |", "| Memory |", " epochs)", "| Training text |", ", all trained |"):
        assert row in page


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress(10, 2)
    progress.advance(5)
    progress.show(5, {"loss": "1.5"})
    progress.tell(["a line that stays"])
    progress.close()
    shown = terminal.getvalue()
    assert "5/10" in shown
    assert "loss=1.5" in shown
    assert "a line that stays\n" in shown


@pytest.mark.parametrize("speed", [1.0, 1e9, 1e30])
def test_no_run_is_faster_than_its_device(monkeypatch: pytest.MonkeyPatch, speed: float) -> None:
    monkeypatch.setattr("gpt_neox_japanese.training.report.mfu._measure_flops", lambda *_: 1e9)
    meter = MfuMeter(10.0, torch.device("cpu"), torch.bfloat16)
    assert 0 < meter.mfu(speed) <= 1
    assert meter.mfu(1.0) <= 1e-8


def test_axes_speak_of_thousands_and_millions() -> None:
    for largest, label in ((8e5, ">200k<"), (9e6, ">2M<"), (45e6, ">10M<"), (900, ">200<")):
        picture = draw_curves({"a": [(0, 1), (largest, 2)]}, "x", "y", log_x=False)
        assert label in picture
        assert "e+" not in picture


def line(step: int, loss: float, **more: float) -> dict[str, Any]:
    values = {"bits_per_character": loss, "tokens_per_second": 1, "mfu": 0.5, "seconds": step}
    return {"step": step, "tokens": 100 * step, "epoch": step / 4, "loss": loss, **values, **more}


def test_a_curve_shows_what_was_learned_and_not_which_texts_a_step_had(tmp_path: Path) -> None:
    hardness = (0.0, 1.0, -1.0, 0.5)  # of the four texts that an epoch has
    log = [line(step, 5 - step / 16 + hardness[step % 4]) for step in range(1, 17)]
    summary = RunSummary(10, 10, {}, "", kept_best=False, peak_memory=0)
    write_report(tmp_path, log, {}, summary, [])
    picture = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    heights = [
        [float(point.split(",")[1]) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]+)"', picture)
    ]
    logged, mean = heights
    assert logged != sorted(logged)
    assert mean == sorted(mean)  # pictures count downwards
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "4.2188 nats per token at the end, 4.9688 at first (means over an epoch)" in page


def test_a_run_says_at_its_end_that_an_earlier_model_was_better(tmp_path: Path) -> None:
    name = "held_out_bits_per_character"
    log = [line(1, 5), *({"step": n, "tokens": n, name: abs(n - 2) + 1} for n in range(5))]
    summary = RunSummary(10, 10, {}, "all", kept_best=False, peak_memory=0)
    shown = write_report(tmp_path, log, {}, summary, [])
    assert shown == (
        "3.0000 bits per character after step 4, 3.0000 after step 0;"
        " the best was 1.0000 after step 2: see --keep-best"
    )
    assert f"| Held-out text | {shown} (all) |" in (tmp_path / "report.md").read_text("utf-8")


def test_the_page_tells_of_every_step_that_was_done(prepared: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=3, log_every=2)
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    lines = read_log(tmp_path / "run" / "loss.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    summary = RunSummary(10, 10, {}, "", kept_best=False, peak_memory=0)
    stopped = {"step": 7, "tokens": 700, "epoch": 1.75, "dtype": "fp32"}
    write_report(tmp_path, [line(4, 5), stopped], {}, summary, [])
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| Steps | 7 |\n| Tokens | 700 (1.75 epochs) |" in page


def test_texts_stay_texts_on_the_page_and_a_setting_of_zero_is_shown(tmp_path: Path) -> None:
    line = {"step": 1, "texts": ["吾輩は\u2028猫\n\n# 二\n> 名前", "無い。"]}
    (tmp_path / "samples.jsonl").write_text(json.dumps(line, ensure_ascii=False), "utf-8")
    texts = read_samples(tmp_path / "samples.jsonl")
    assert texts == line["texts"]
    settings = {"weight_decay": 0.0, "seed": 0, "merge": False, "sample_prompt": ["a|b"]}
    write_report(tmp_path, [], settings, RunSummary(10, 10, {}, "", False, 0), texts)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "\n\n> 吾輩は\n> 猫\n> \n> # 二\n> > 名前\n\n> 無い。\n\n" in page
    assert page.endswith("| weight_decay | 0.0 |\n| seed | 0 |\n| sample_prompt | ['a&#124;b'] |\n")


def test_an_equal_figure_is_not_said_to_be_better(tmp_path: Path) -> None:
    log = [{"step": n, "tokens": n, "held_out_bits_per_character": 2.0} for n in range(2)]
    shown = write_report(tmp_path, log, {}, RunSummary(10, 10, {}, "", False, 0), [])
    assert shown == "2.0000 bits per character after step 1, 2.0000 after step 0"


def never_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step make the model worse, and so the second measurement on."""
    step = torch.optim.AdamW.step

    def worse(self: Any, *given: Any) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(torch.randn_like(parameter))
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", worse)


def test_the_best_model_is_kept_and_a_run_without_a_better_one_ends(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_better(monkeypatch)
    settings = dataclasses.replace(
        SETTINGS, steps=40, eval_every=1, keep_best=True, early_stopping=3, optimizer="adamw"
    )
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    measured = held_out(tmp_path / "run")
    assert list(measured) == [0, 1, 2, 3]
    assert (tmp_path / "run" / "checkpoint-3").is_dir()
    data = ("--data", prepared / "held-out.jsonl", "--json")
    result = run("evaluate", "--model", tmp_path / "run", *data)
    assert json.loads(result.stdout)["bits_per_character"] == pytest.approx(measured[0], rel=1e-4)
    page = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert f"{measured[0]:.4f} bits per character after step 0" in page


def test_a_resumed_run_knows_its_best_model(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SETTINGS, eval_every=1, keep_best=True, optimizer="adamw")
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    never_better(monkeypatch)
    longer = dataclasses.replace(settings, steps=6)
    assert train(prepared, tmp_path / "run", longer, SHAPE, resume=True)
    measured = held_out(tmp_path / "run")
    assert min(measured, key=lambda step: measured[step]) == 4
    result = run(
        *("evaluate", "--model", tmp_path / "run", "--data", prepared / "held-out.jsonl", "--json")
    )
    assert json.loads(result.stdout)["bits_per_character"] == pytest.approx(measured[4], rel=1e-4)


def test_figures_of_an_older_version_are_compared_with_those_of_its_resume() -> None:
    def line(step: int, tokens: int | None) -> dict[str, Any]:
        told = {} if tokens is None else {"held_out_tokens": tokens}
        return {"step": step, "held_out_bits_per_character": 5.0, **told}

    log = [line(0, 9), line(1, None), line(2, 7), {"step": 2, "loss": 1.0}, line(3, 7)]
    assert [line["step"] for line in measurements(log)] == [1, 2, 3]
    assert [line["step"] for line in measurements(log[:2])] == [1]
    assert measurements([]) == []


def test_a_resumed_run_that_measures_other_text_compares_no_figure_with_the_old_ones(
    prepared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = dataclasses.replace(SETTINGS, eval_every=1, keep_best=True, optimizer="adamw")
    assert train(prepared, tmp_path / "run", settings, SHAPE)
    few = dataclasses.replace(settings, eval_tokens=1)
    assert train(prepared, tmp_path / "run", few, SHAPE, resume=True)  # nothing is left to do
    assert "(all of it, as" in (tmp_path / "run" / "report.md").read_text("utf-8")
    never_better(monkeypatch)
    other = dataclasses.replace(settings, steps=9, eval_tokens=1, early_stopping=2)
    assert train(prepared, tmp_path / "run", other, SHAPE, resume=True)
    assert "the best figure until here is not compared" in capsys.readouterr().err
    measured = held_out(tmp_path / "run")
    assert list(measured) == [*range(8)]
    kept = f"{measured[5]:.4f} bits per character after step 5 ("
    assert f"| Held-out text | {kept}" in (tmp_path / "run" / "report.md").read_text("utf-8")
    assert f"**{measured[5]:.3f} bits" in model_card(tmp_path / "run", "me/it", license_id="mit")


def test_a_run_without_held_out_text_says_so_and_keeps_no_best(
    corpus: Path,
    tokenizer_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "data"
    prepare([corpus], tokenizer_directory, data, held_out=0, workers=1)
    with pytest.raises(NeoXJapaneseError, match=r"--keep-best goes by measurements, .*data has no"):
        train(data, tmp_path / "run", dataclasses.replace(SETTINGS, keep_best=True), SHAPE)
    assert train(data, tmp_path / "run", SETTINGS, SHAPE)
    assert "there is no held-out text" in capsys.readouterr().err
    lines = read_log(tmp_path / "run" / "loss.jsonl")
    assert all(line["bits_per_character"] > 0 for line in lines if "loss" in line)
    assert "| Held-out text | none was measured |" in (tmp_path / "run" / "report.md").read_text()


def test_a_reporter_that_is_none_or_is_not_there_is_refused(prepared: Path, tmp_path: Path) -> None:
    base = ("train", "--data", prepared, "--output", tmp_path / "run", "--report-to")
    assert_refused(run(*base, "nobody"), "has azure_ml, ")
    assert_refused(run(*base, "swanlab"), "--report-to swanlab cannot be used")


def test_a_resumed_run_may_have_another_precision_and_says_so(
    prepared: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    assert train(prepared, output, SETTINGS, SHAPE)
    longer = dataclasses.replace(SETTINGS, steps=6, dtype="bf16", schedule="wsd")
    assert train(prepared, output, longer, SHAPE, resume=True)
    assert "| Precision | fp32, bf16 from step 5 on |" in (output / "report.md").read_text()


@pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own
def test_adapters_are_told_apart_from_what_they_adapt(prepared: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    assert train(prepared, tmp_path / "model", SETTINGS, SHAPE)
    settings = Settings(sequence_length=32, steps=1, lora_rank=2, batch_size=1)
    assert train(prepared, tmp_path / "lora", settings, tmp_path / "model")
    page = (tmp_path / "lora" / "report.md").read_text(encoding="utf-8")
    assert re.search(r"\| Parameters \| [\d,]+, 256 \([\d.]+%\) trained \|", page)
