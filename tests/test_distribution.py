"""The wheel: what it holds, and that it works elsewhere without a network."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODEL_FILES = {
    *("config.json", "generation_config.json", "model.safetensors"),
    *("vocab.txt", "emoji.json", "tokenizer_config.json"),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(directory.glob("*.whl"))


def test_wheel_holds_the_model_and_the_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    prefix = "gpt_neox_japanese/assets/default/"
    assert {name.removeprefix(prefix) for name in names if name.startswith(prefix)} == MODEL_FILES
    assert "gpt_neox_japanese/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_elsewhere_writes_japanese_without_a_network(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = "from gpt_neox_japanese import cli; print(cli.__file__, flush=True); cli.main()"
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "installed"),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # where nobody listens
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    result = subprocess.run(
        [sys.executable, "-c", code, "generate", "吾輩は", "--max-new-tokens", "20", "--seed", "1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    origin, text = result.stdout.split("\n", 1)
    assert origin.startswith(str(tmp_path))
    assert text.startswith("吾輩は")
    assert len(text) > 10


def test_embedded_model_is_small_and_complete() -> None:
    from gpt_neox_japanese import default_model_directory

    directory = default_model_directory()
    assert {file.name for file in directory.iterdir()} == MODEL_FILES
    assert (directory / "model.safetensors").stat().st_size <= 32_000_000


def test_engines_find_functions_behind_the_entry_points(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [name] = [name for name in archive.namelist() if name.endswith("/entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(archive.read(name).decode())
    for group in ("vllm.general_plugins", "sglang.srt.plugins"):
        point = EntryPoint("gpt_neox_japanese", parser[group]["gpt_neox_japanese"], group)
        assert callable(point.load())
