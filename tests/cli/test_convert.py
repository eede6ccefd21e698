from __future__ import annotations

import pytest

from gpt_neox_japanese.assets import default_model_directory
from tests.cli.run import assert_refused, run


@pytest.mark.parametrize("target", ["bf16", "int8", "int4"])
def test_a_converted_model_is_a_model(tmp_path, target):
    output = tmp_path / "out"
    result = run("convert", default_model_directory(), "--to", target, "--output", output)
    assert result.exit_code == 0, result.output
    assert "MB of weights" in result.stdout
    assert (output / "model.safetensors").is_file()
    assert (output / "vocab.txt").is_file()


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    result = run("convert", tmp_path / "none", "--to", "int8", "--output", tmp_path / "out")
    assert_refused(result, "config.json")


def test_an_unknown_format_is_refused(tmp_path):
    result = run("convert", tmp_path, "--to", "int3", "--output", tmp_path / "out")
    assert_refused(result, "int3")
