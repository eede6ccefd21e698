"""What docs/guide/own-model.md shows: every command is run, at a small size."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.corpus import read_documents
from gpt_neox_japanese.tokenizer.codec import Codec
from gpt_neox_japanese.training.data.shards import PreparedData
from tests.cli.run import run
from tests.training.data.test_megatron import write

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide" / "own-model.md"

# What the guide shows at full size and a test runs at a small one.
SMALLER = {
    "--size 8000": "--size 1200",
    "--tokens 45000000": "--steps 2",
    "--hidden-size 256": "--hidden-size 16",
    "--layers 6": "--layers 1",
    "--heads 4": "--heads 2",
    "--output data": "--output data --held-out 0.3",
    "--output own": "--output own --held-out 0.3",
    "--gradient-accumulation 16": "--gradient-accumulation 2",
    "--steps 200": "--steps 2",
    "--cloze 100": "--cloze 4",
    "--batch-size 8": "--batch-size 2",
}
TINY = "--sequence-length 128 --eval-tokens 64 --sample-tokens 4"


def commands() -> list[str]:
    text = GUIDE.read_text(encoding="utf-8")
    return "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines()


def small(command: str) -> list[str]:
    for large, little in SMALLER.items():
        command = command.replace(large, little)
    words = shlex.split(command.removeprefix("$ "))
    if "train" in words and "--config" not in words:
        words += shlex.split(TINY)
        if not {"--steps", "--tokens"} & set(words):
            words += ["--steps", "2"]
        if "--batch-size" not in words:
            words += ["--batch-size", "2"]
    return words


@pytest.fixture
def directory(corpus_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a few short works in `corpus`."""
    monkeypatch.chdir(tmp_path)
    short = (d for d in read_documents([corpus_directory]) if 500 < len(d.text) < 3000)
    lines = [json.dumps({"id": d.id, "text": d.text}) for d in itertools.islice(short, 30)]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "works.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path


def make_stand_ins(directory: Path) -> None:
    """A small model with the name of the large one, and the prepared data as indexed datasets."""
    Codec.load(directory / "vocabulary").save(directory / "abeja-2.7b")
    data = PreparedData(directory / "data")
    config = GPTNeoXJapaneseConfig(
        vocab_size=data.manifest.vocabulary_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=data.manifest.eos_token_id,
        eos_token_id=data.manifest.eos_token_id,
    )
    torch.manual_seed(0)
    GPTNeoXJapaneseForCausalLM(config).save_pretrained(directory / "abeja-2.7b")
    for name, stream in (("indexed", data.train), ("held", data.held_out)):
        ids = stream.read(0, len(stream))
        documents = np.split(ids, np.flatnonzero(ids == data.manifest.eos_token_id) + 1)
        write(directory / f"{name}_text_document", [d.tolist() for d in documents if len(d)])


@pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own
def test_every_command_of_the_guide_runs(directory: Path) -> None:
    assert len(commands()) == 14
    for command in commands():
        words = small(command)
        if "--lora-rank" in words and find_spec("peft") is None:
            continue
        if words[0] == "torchrun":
            at_once(words)
            continue
        result = run(*words[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        assert result.stdout
        if words[1] == "prepare" and "vocabulary" in words:
            make_stand_ins(directory)


def test_torchrun_knows_the_options_that_the_guide_gives_it() -> None:
    from torch.distributed.run import get_args_parser

    text = GUIDE.read_text(encoding="utf-8").replace("\\\n", " ")
    shown = re.findall(r"^(?:\$ )?torchrun (-.*)$", text, re.MULTILINE)
    assert len(shown) == 2
    for line in shown:
        parsed = get_args_parser().parse_args(shlex.split(line))
        assert (parsed.no_python, parsed.training_script) == (True, "neox-ja")
        assert parsed.training_script_args[0] == "train"


def at_once(words: list[str]) -> None:
    """The real torchrun; `neox-ja` may not be on the path of the tests."""
    start = words.index("--no-python")
    code = "from gpt_neox_japanese.cli import main; main()"
    Path("neox_ja.py").write_text(code, encoding="utf-8")
    command = [
        *(sys.executable, "-W", "ignore", "-m", "torch.distributed.run"),
        *(*words[1:start], "neox_ja.py", *words[start + 2 :]),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "the model is in shared\n"
