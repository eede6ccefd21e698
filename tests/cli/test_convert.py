"""`neox-ja convert`: the same model in fewer bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt_neox_japanese.cli.convert import command
from tests.cli.run import assert_refused, run
from tests.float_model import float_model

WEIGHTS = "model.safetensors"


def greedy(model: Path) -> tuple[list[int], list[float]]:
    """The ids that a model writes greedily, and the log-probability of each."""
    options = ("--max-new-tokens", 2, "--temperature", 0, "--json", "--logprobs", 0)
    result = run("generate", "吾輩は猫である。", "--model", model, *options)
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    return written["token_ids"], written["logprobs"]


# int4's embeddings and head are int8.
@pytest.mark.parametrize(
    ("target", "share", "error"), [("bf16", 1.001, 1e-6), ("int8", 0.51, 0.02), ("int4", 0.35, 0.8)]
)
def test_a_converted_model_has_the_size_of_its_format_and_writes_as_before(
    tmp_path: Path, target: str, share: float, error: float
) -> None:
    original, output = float_model(), tmp_path / "out"
    result = run("convert", original, "--to", target, "--output", output)
    assert result.exit_code == 0, result.output
    assert "MB of weights" in result.stdout
    assert "int8 is faster" not in result.stderr  # only of a smaller model
    assert (output / WEIGHTS).stat().st_size <= share * (original / WEIGHTS).stat().st_size
    ids, logprobs = greedy(output)
    expected_ids, expected = greedy(original)
    assert ids == expected_ids
    assert logprobs == pytest.approx(expected, abs=error)


def test_a_text_to_calibrate_on_changes_the_rounding_and_its_loss_is_told(tmp_path: Path) -> None:
    text, output, alone = tmp_path / "text.txt", tmp_path / "out", tmp_path / "alone"
    written = run("generate", "吾輩は猫である。", "--max-new-tokens", 400, "--seed", 1)
    text.write_text(written.stdout * 30, encoding="utf-8")
    result = run(
        "convert", float_model(), "--to", "int4", "--calibration", text, "--output", output
    )
    assert result.exit_code == 0, result.output
    said = json.loads((output / "config.json").read_text())["quantization_config"]["calibration"]
    assert f"calibrated on {said['tokens']:,} tokens" in result.stdout
    assert f"{said['divergence_bits']:.4f} bits" in result.stdout
    run("convert", float_model(), "--to", "int4", "--output", alone)
    assert (output / WEIGHTS).stat().st_size == (alone / WEIGHTS).stat().st_size
    assert (output / WEIGHTS).read_bytes() != (alone / WEIGHTS).read_bytes()
    assert len(greedy(output)[0]) == 2


def test_a_model_writes_the_text_to_calibrate_on_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_neox_japanese.inference.calibration_text.NUM_TOKENS", 3 * 512)
    output = tmp_path / "out"
    result = run(
        "convert", float_model(), "--to", "int4", "--calibration", "self", "--output", output
    )
    assert result.exit_code == 0, result.output
    assert "The model writes 1,536 tokens" in result.stderr
    assert "calibrated on 1,536 tokens" in result.stdout


@pytest.mark.parametrize(
    ("target", "texts", "said"),
    [
        ("int4", ["short.txt"], "has 5 tokens, at least 4,608 are needed"),
        ("int4", ["none.txt"], "none.txt does not exist"),
        ("int4", ["short.pdf"], "unknown kind"),
        ("int4", ["self", "short.txt"], "--calibration self stands alone"),
        ("int4", [""], "names nothing"),
        ("int8", ["self"], "--calibration is for --to int4"),
        ("gguf", ["short.txt"], "--calibration is for --to int4"),
    ],
)
def test_texts_that_cannot_be_calibrated_on_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, texts: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("short.txt", "short.pdf"):
        Path(name).write_text("短い文。", encoding="utf-8")
    options = [part for text in texts for part in ("--calibration", text)]
    assert_refused(run("convert", float_model(), "--to", target, *options, "--output", "out"), said)
    assert {path.name for path in tmp_path.iterdir()} == {"short.txt", "short.pdf"}


def test_no_text_is_written_for_an_output_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    options = ("--to", "int4", "--calibration", "self", "--output", tmp_path)
    assert_refused(run("convert", float_model(), *options), "not empty")


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    result = run("convert", tmp_path / "none", "--to", "int8", "--output", tmp_path / "out")
    assert_refused(result, "config.json")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    result = run("convert", tmp_path, "--to", "int3", "--output", tmp_path / "out")
    assert_refused(result, "int3")


def test_a_terminal_shows_how_much_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    options = [str(float_model()), "--to", "bf16", "--output", str(tmp_path / "out")]
    command.main(options, standalone_mode=False)
    shown = capsys.readouterr()
    assert "MB of weights" in shown.out
    *_, last, end = shown.err.split("\r")
    done, of, whole, unit = last.split()
    assert (done, of, unit, end) == (whole, "of", "MB", "")


def test_a_gguf_file_becomes_the_same_model_again(tmp_path: Path) -> None:
    file, back = tmp_path / "model.gguf", tmp_path / "back"
    result = run("convert", float_model(), "--to", "gguf", "--type", "F32", "--output", file)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{file}: {file.stat().st_size / 1e6:,.1f} MB\n"
    result = run("convert", file, "--from", "gguf", "--output", back)
    assert result.exit_code == 0, result.output
    assert greedy(back) == greedy(float_model())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "--to is missing"),
        (("--to", "gguf", "--type", "q4_k_m"), "is none of f32, f16, bf16, q8_0"),
        (("--to", "int8", "--type", "f16"), "--type is for --to gguf"),
        (("--from", "gguf", "--to", "int8"), "leave out --to int8"),
        (("--from", "gguf"), "none.gguf"),
        (("--to", "onnx"), "onnx"),
    ],
)
def test_options_of_gguf_that_make_no_sense_are_refused(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    model = tmp_path / "none.gguf" if "--from" in options else "default"
    assert_refused(run("convert", model, *options, "--output", tmp_path / "out"), said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["int8", "gguf", "gpt-neox"])
def test_what_somebody_keeps_where_the_result_would_grow_stays(tmp_path: Path, target: str) -> None:
    own = tmp_path / ".user.converted"
    own.mkdir()
    (own / "letter").write_text("keep", encoding="utf-8")
    assert_refused(
        run("convert", float_model(), "--to", target, "--output", tmp_path / "user"), "in the way"
    )
    assert (own / "letter").read_text(encoding="utf-8") == "keep"


def test_of_a_small_model_int8_is_said_to_be_faster_than_int4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpt_neox_japanese.cli.convert._SMALL", 60e6)
    for target in ("int8", "int4"):
        result = run("convert", float_model(), "--to", target, "--output", tmp_path / target)
        assert ("int8 is faster" in result.stderr) is (target == "int4")
