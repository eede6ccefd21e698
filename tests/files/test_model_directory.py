"""One way to a model: a directory, or a repository on the Hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gpt_neox_japanese import TextGenerator, default_model_directory
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_directory import find_model, find_tokenizer, is_hub_id
from tests.hub import environment_of
from tests.inference.conftest import checkpoint

__all__ = ["checkpoint"]

SMALL = {"vocab.txt", "emoji.json", "tokenizer_config.json", "config.json"}


def in_process(hub: str, home: Path, code: str, *arguments: str) -> Any:
    """What a fresh process, for which the Hub is another, prints as JSON."""
    command = [sys.executable, "-c", f"import json, sys\n{code}", *arguments]
    environment = environment_of(hub, home)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


GENERATE = """
from gpt_neox_japanese import TextGenerator
with TextGenerator.from_pretrained(sys.argv[1], cache_dir=sys.argv[2]) as generator:
    print(json.dumps(generator.generate("猫は", temperature=0, max_new_tokens=9)))
"""


@pytest.fixture
def published(checkpoint: Path, tmp_path: Path) -> Path:
    """A repository with more than is needed."""
    directory = tmp_path / "published" / "model"
    shutil.copytree(checkpoint, directory)
    for name in ("pytorch_model.bin", "tf_model.h5", "README.md", "optimizer.safetensors"):
        (directory / name).write_bytes(b"not needed")
    return directory


def test_a_model_of_the_hub_writes_and_only_what_is_needed_is_fetched(
    published: Path, checkpoint: Path, hub: str, hub_requests: list[str], tmp_path: Path
) -> None:
    with TextGenerator.from_pretrained(checkpoint) as ours:
        expected = ours.generate("猫は", temperature=0, max_new_tokens=9)
    arguments = (GENERATE, "someone/model", str(tmp_path / "cache"))
    assert in_process(hub, tmp_path, *arguments) == expected
    assert set(hub_requests) == SMALL | {"model.safetensors", "generation_config.json"}
    # The second time nothing is fetched.
    hub_requests.clear()
    assert in_process(hub, tmp_path, *arguments) == expected
    assert hub_requests == []


def test_pickled_weights_are_fetched_where_there_are_no_others(
    published: Path, hub: str, hub_requests: list[str], tmp_path: Path
) -> None:
    (published / "model.safetensors").unlink()
    code = """
from gpt_neox_japanese.files.model_directory import find_model
print(json.dumps(sorted(file.name for file in find_model(sys.argv[1]).iterdir())))
"""
    found = in_process(hub, tmp_path, code, "someone/model")
    assert "pytorch_model.bin" in found
    assert "pytorch_model.bin" in hub_requests
    assert not {"README.md", "tf_model.h5", "optimizer.safetensors"} & set(hub_requests)


def test_a_tokenizer_is_fetched_without_the_model(
    published: Path, hub: str, hub_requests: list[str], tmp_path: Path
) -> None:
    code = """
from gpt_neox_japanese.files.model_directory import find_tokenizer
print(json.dumps(sorted(file.name for file in find_tokenizer(sys.argv[1]).iterdir())))
"""
    found = set(in_process(hub, tmp_path, code, "someone/model"))
    assert found == set(hub_requests) == SMALL - {"config.json"}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("someone/nothing", [], "knows no repository"),
        ("someone/model", ["--offline"], "cannot be reached"),
        ("not/a/path", [], "no model directory"),
        ("nowhere", [], "no model directory"),
        ("./someone/model", [], "no model directory"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    published: Path, hub: str, tmp_path: Path, name: str, options: Sequence[str], said: str
) -> None:
    code = """
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_directory import find_model
try:
    find_model(sys.argv[1], local_files_only="--offline" in sys.argv)
except CheckpointError as error:
    print(json.dumps(str(error)))
"""
    message = in_process(hub, tmp_path, code, name, *options)
    assert said in message
    assert repr(name) in message
    assert "\n" not in message


def test_a_tokenizer_that_is_not_there_is_no_model() -> None:
    with pytest.raises(CheckpointError, match="no tokenizer directory 'nowhere'"):
        find_tokenizer("nowhere")


def test_a_hub_that_does_not_answer_is_said(tmp_path: Path) -> None:
    code = """
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_directory import find_model
try:
    find_model("someone/model")
except CheckpointError as error:
    print(json.dumps(str(error)))
"""
    assert "'someone/model'" in in_process("http://127.0.0.1:9", tmp_path, code)


def test_a_directory_goes_before_the_hub_and_default_is_the_packages_own(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkpoint, tmp_path / "someone" / "model")
    monkeypatch.chdir(tmp_path)
    assert find_model("someone/model") == Path("someone/model")
    assert find_tokenizer(Path("someone/model")) == Path("someone/model")
    assert find_model("default") == default_model_directory()
    shutil.copytree(checkpoint, tmp_path / "default")
    assert find_model("default") == default_model_directory()
    assert find_model("./default") == Path("default")


@pytest.mark.parametrize("name", [None, 3, "", b"model", ["model"], "x" * 999, "\0"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(CheckpointError, match=r"directory.* or a Hub id"):
        find_model(name)


@pytest.mark.parametrize(
    "name",
    ["models/..", "foo/bar--baz", "a/b.git", "a/b.", "a/b-", "a./b", "a..b/c", f"a/{'b' * 97}"],
)
def test_names_that_the_hub_refuses_are_no_directory_and_no_id(name: str) -> None:
    for find in (find_model, find_tokenizer):
        with pytest.raises(CheckpointError, match=r"no \w+ directory '.*or a\s+Hub id such as"):
            find(name)
    assert not is_hub_id(name)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"revision": 5}, "revision is 5"),
        ({"cache_dir": 5}, "cache_dir is 5"),
        ({"token": 5}, "token is not"),
        ({"token": "合言葉"}, "token is not"),
        ({"local_files_only": "yes"}, "local_files_only is 'yes'"),
    ],
)
@pytest.mark.parametrize("name", ["default", "someone/model"])
def test_what_is_no_place_on_the_hub_is_refused_wherever_the_model_is(
    name: str, given: Any, said: str
) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        find_model(name, **given)
    assert "合言葉" not in str(caught.value)


def test_a_misspelt_argument_is_refused() -> None:
    misspelt: Any = {"revison": "main"}
    with pytest.raises(TypeError, match="revison"):
        find_tokenizer("default", **misspelt)
