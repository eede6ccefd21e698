"""What is published is complete, tells how it was made, and is read by transformers alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file

from gpt_neox_japanese import TextGenerator
from gpt_neox_japanese.errors import ArgumentError, CheckpointError, RemoteError
from gpt_neox_japanese.interop.hub import publication, publish
from gpt_neox_japanese.training.data.conversations import prepare_conversations
from gpt_neox_japanese.training.data.prepare import prepare
from gpt_neox_japanese.training.run import train
from gpt_neox_japanese.training.settings import Architecture, Settings
from tests.cli.run import assert_refused, run
from tests.float_model import float_model
from tests.hub import TOKEN, environment_of
from tests.interop.samples import PROMPTS

# The Hub's address is read when huggingface_hub is imported.
PUBLISH = """
import sys
from gpt_neox_japanese.cli import main
main(sys.argv[1:])
"""
READ = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
name, prompts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
assert type(model).__module__.startswith("transformers."), type(model)
rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
greedy = {"do_sample": False, "repetition_penalty": 1.0, "max_new_tokens": 8}
texts = [model.generate(torch.tensor([row]), **greedy)[0] for row in rows[:3]]
print(json.dumps([rows, [text.tolist() for text in texts]]))
"""
PUSH = """
import sys
from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseTokenizer
GPTNeoXJapaneseForCausalLM.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
GPTNeoXJapaneseTokenizer.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2])
"""


def process(program: str, hub: str, home: Path, *arguments: object, token: str = TOKEN) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**environment_of(hub, home), "HF_TOKEN": token, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def ours(prompts: Sequence[str]) -> list[list[list[int]]]:
    """The ids of prompts, and of the first three with what the default model continues."""
    with TextGenerator.from_pretrained(float_model(), threads=1) as generator:
        rows = [generator.codec.encode(prompt) for prompt in prompts]
        written = generator.generate_details(
            list(prompts[:3]), max_new_tokens=8, temperature=0, repetition_penalty=1.0
        )
    return [rows, [[*row, *x.token_ids] for row, [x] in zip(rows, written, strict=False)]]


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer_directory: Path
) -> Path:
    output = tmp_path_factory.mktemp("data") / "prepared"
    prepare([corpus], tokenizer_directory, output, held_out=0.2, workers=1)
    return output


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A run of two steps."""
    output = tmp_path_factory.mktemp("runs") / "finished"
    settings = Settings(
        sequence_length=16,
        batch_size=2,
        steps=2,
        dtype="fp32",
        log_every=1,
        eval_every=1,
        sample_prompt=("吾輩は",),
        sample_tokens=4,
    )
    train(prepared, output, settings, Architecture(8, 1, 1))
    return output


def fields_of(page: str) -> dict[str, object]:
    _, fields, _ = page.split("---\n", 2)
    found = yaml.safe_load(fields)
    assert isinstance(found, dict)
    return found


def test_the_page_tells_what_the_run_left(finished: Path, prepared: Path) -> None:
    what = publication(finished, "someone/cat", license_id="apache-2.0", data="青空文庫。")
    assert fields_of(what.page)["license"] == "apache-2.0"
    assert fields_of(what.page)["language"] == "ja"
    log = [json.loads(line) for line in (finished / "loss.jsonl").read_text().splitlines()]
    bits = [x["held_out_bits_per_character"] for x in log if "held_out_bits_per_character" in x]
    manifest = json.loads((prepared / "manifest.json").read_text())
    for said in (
        "# cat\n",
        "1 layers, 8 channels, 1 heads",
        f"**{bits[-1]:.3f} bits per character** of held-out text after step 2",
        f"{manifest['train']['documents']:,} documents, {manifest['train']['characters']:,} char",
        "2 steps, 64 tokens",
        "![bits per character during the run](loss.svg)",
        "青空文庫。",
        "> 吾輩は",
        'neox-ja generate "吾輩は" --model someone/cat',
    ):
        assert said in what.page, said
    assert str(prepared) not in what.page
    assert str(finished.parent) not in what.page


def test_the_figure_is_that_of_the_model_that_was_kept(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    record = json.loads((run / "train.json").read_text(encoding="utf-8"))
    (run / "train.json").write_text(json.dumps({**record, "keep_best": True}))
    lines = [
        {"step": step, "tokens": 32 * step, "held_out_bits_per_character": bits}
        for step, bits in enumerate((6.0, 2.5, 4.0))
    ]
    (run / "loss.jsonl").write_text("\n".join(map(json.dumps, lines)))
    page = publication(run, "someone/cat", license_id="mit").page
    assert "**2.500 bits per character** of held-out text after step 1 (" in page


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"optimizer": "auto"}, "| Settings | optimizer muon, "),
        ({"optimizer": "auto", "lora_rank": 8}, "optimizer adamw, "),
        ({"lora_rank": 8}, ", LoRA rank 8 |"),
        ({"init_from": "default"}, "| Trained on from | the model in the package gpt-neox-"),
        ({"init_from": "a/b"}, "| Trained on from | [a/b](https://huggingface.co/a/b) |"),
    ],
)
def test_the_page_says_what_was_chosen(
    finished: Path, tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    begun = json.loads((run / "train.json").read_text(encoding="utf-8"))
    (run / "train.json").write_text(json.dumps({**begun, **record}))
    page = publication(run, "someone/cat", license_id="mit").page
    assert said in page
    assert fields_of(page).get("base_model") == (
        "a/b" if record.get("init_from") == "a/b" else None
    )


def test_a_model_that_learned_to_answer_is_said_to_answer(tmp_path: Path) -> None:
    said = {"id": "1", "prompt": "空は何色？", "completion": "青です。"}
    lines = [json.dumps({**said, "id": str(number)}) for number in range(8)]
    (tmp_path / "talk.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = tmp_path / "data"
    prepare_conversations([tmp_path / "talk.jsonl"], "default", data, held_out=0.2)
    settings = Settings(sequence_length=48, batch_size=1, steps=1, dtype="fp32")
    train(data, tmp_path / "run", settings, Architecture(8, 1, 1))
    page = publication(tmp_path / "run", "someone/cat", license_id="mit").page
    for part in (
        "A language model that answers in Japanese.",
        " conversations, ",
        " bits per character** of the answers of held-out conversations after step 1",
        "neox-ja chat --model someone/cat",
        "tokenizer.apply_chat_template(",
    ):
        assert part in page, part
    assert "吾輩は" not in page


def test_what_a_configuration_does_not_say_is_said_by_the_page(
    finished: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(finished, tmp_path / "model")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    del config["max_position_embeddings"]
    config["quantization_config"] = None
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    page = publication(model, "someone/cat", license_id="mit").page
    assert "context of 2,048 tokens" in page
    assert "transformers reads it without that package" in page


def test_records_and_checkpoints_stay_here(finished: Path) -> None:
    what = publication(finished, "someone/cat", license_id="mit")
    assert sorted(what.files) == [
        *("config.json", "emoji.json", "generation_config.json", "loss.svg", "model.safetensors"),
        *("tokenizer_config.json", "vocab.txt"),
    ]


def test_a_page_that_somebody_wrote_is_taken_as_it_is(finished: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(finished, tmp_path / "mine")
    page = "---\nlicense: cc0-1.0\n---\n\n# 私の模型\n"
    (mine / "README.md").write_text(page, encoding="utf-8")
    assert publication(mine, "someone/mine").page == page
    for said in ({"license_id": "mit"}, {"data": "青空文庫。"}):
        with pytest.raises(ArgumentError, match=r"README\.md is the page.*; write there"):
            publication(mine, "someone/mine", **said)


def test_a_page_that_is_not_utf8_is_refused_with_the_remedy(finished: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(finished, tmp_path / "mine")
    (mine / "README.md").write_bytes("私の模型".encode("cp932"))
    with pytest.raises(CheckpointError, match=r"README\.md is not UTF-8; save it as UTF-8"):
        publication(mine, "someone/mine")


def test_what_cannot_be_published_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="'cat' is no repository; write owner/name"):
        publication(finished, "cat", license_id="mit")
    with pytest.raises(ArgumentError, match="--license is missing"):
        publication(finished, "someone/cat")
    with pytest.raises(ArgumentError, match="'Do what you like' is no licence"):
        publication(finished, "someone/cat", license_id="Do what you like")
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="adapter"):
        publication(adapters, "someone/cat", license_id="mit")
    pickled = shutil.copytree(finished, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a pickle is not published"):
        publication(pickled, "someone/cat", license_id="mit")
    assert_refused(run("publish", finished, "cat"), "'cat' is no repository")


@pytest.fixture
def sharded(finished: Path, tmp_path: Path) -> Path:
    """The model of `finished` in two shards, beside files that the index does not name."""
    directory = shutil.copytree(finished, tmp_path / "sharded")
    tensors = load_file(directory / "model.safetensors")
    first = dict([tensors.popitem()])
    shards = {"model-1.safetensors": first, "model-2.safetensors": tensors}
    for name, shard in shards.items():
        save_file(shard, directory / name)
    where = {tensor: name for name, shard in shards.items() for tensor in shard}
    index = json.dumps({"metadata": {}, "weight_map": where})
    (directory / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    (directory / "model.safetensors").rename(directory / "model-old.safetensors")
    (directory / "model-older.safetensors").symlink_to("nowhere")
    return directory


def test_of_the_weights_those_are_sent_that_are_read(sharded: Path) -> None:
    sent = publication(sharded, "someone/cat", license_id="mit").files
    shards = ["model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
    assert sorted(name for name in sent if name.startswith("model")) == shards


def test_weights_that_nobody_could_load_are_not_sent(sharded: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            publication(sharded, "someone/cat", license_id="mit")

    index, shard = sharded / "model.safetensors.index.json", sharded / "model-2.safetensors"
    text, data = index.read_text(encoding="utf-8"), shard.read_bytes()
    shard.write_bytes(data[:-8])
    refused(r"model-2\.safetensors.* is broken")
    shard.unlink()
    refused(r"model-2\.safetensors")
    shard.write_bytes((sharded / "model-1.safetensors").read_bytes())
    refused("is missing")
    (sharded / "weights.safetensors").write_bytes(data)
    index.write_text(text.replace("model-2", "weights"), encoding="utf-8")
    refused(r"names the file 'weights\.safetensors'.*; rename it")
    (sharded / "model.safetensors").symlink_to("nowhere")
    refused(r"model\.safetensors")


def test_a_link_to_nothing_is_named(finished: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(finished, tmp_path / "mine")
    (mine / "chat_template.jinja").symlink_to("nowhere")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja is no file.*put the file"):
        publication(mine, "someone/cat", license_id="mit")


def test_a_dry_run_prints_the_page_and_sends_nothing(finished: Path) -> None:
    result = run("publish", finished, "someone/cat", "--license", "mit", "--dry-run")
    assert result.exit_code == 0, result.output
    assert result.stdout == publication(finished, "someone/cat", license_id="mit").page
    assert "would publish: README.md, config.json" in result.stderr


def test_the_page_says_of_the_data_what_the_option_says(finished: Path) -> None:
    arguments = ("publish", finished, "someone/model", "--license", "apache-2.0", "--dry-run")
    assert "青空文庫から。" in run(*arguments, "--data-text", "青空文庫から。").stdout


@pytest.mark.parametrize("private", [False, True])
def test_a_new_repository_is_private_where_asked(
    finished: Path, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    asked: list[bool] = []

    def publish(_what: object, *, private: bool) -> str:
        asked.append(private)
        return "there"

    monkeypatch.setattr("gpt_neox_japanese.interop.hub.publish", publish)
    option = ["--private"] * private
    result = run("publish", finished, "someone/model", "--license", "apache-2.0", *option)
    assert (result.stdout, asked) == ("there\n", [private])


def test_without_a_hub_it_fails_with_what_to_do(finished: Path) -> None:
    with pytest.raises(RemoteError, match=r"cannot be published: .*`hf auth login`"):
        publish(publication(finished, "someone/cat", license_id="mit"))  # tests are offline


def test_the_default_model_published_is_read_by_transformers_alone_with_equal_ids(
    hub: str, tmp_path: Path
) -> None:
    directory = float_model()
    arguments = ("publish", directory, "someone/default", "--license", "apache-2.0")
    address = process(PUBLISH, hub, tmp_path, *arguments).strip()
    assert re.fullmatch(rf"{hub}/someone/default/commit/[0-9a-f]{{40}}", address)
    there = tmp_path / "published" / "default"
    assert "temperature 0.7, top_p 0.8" in (there / "README.md").read_text(encoding="utf-8")
    for file in directory.iterdir():
        assert (there / file.name).read_bytes() == file.read_bytes()
    prompts = json.dumps(PROMPTS)
    assert json.loads(process(READ, hub, tmp_path, "someone/default", prompts)) == ours(PROMPTS)


def test_what_an_older_model_left_goes_with_the_commit(
    finished: Path, hub: str, tmp_path: Path
) -> None:
    there = tmp_path / "published" / "cat"
    there.mkdir(parents=True)
    of_a_model = (
        *("model-00001-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
        *("chat_template.jinja", "adapter_config.json"),
    )
    of_others = (".gitattributes", "LICENSE", "loss.png")
    for name in (*of_a_model, *of_others):
        (there / name).write_text("old", encoding="utf-8")
    process(PUBLISH, hub, tmp_path, "publish", finished, "someone/cat", "--license", "mit")
    sent = publication(finished, "someone/cat", license_id="mit").files
    assert {file.name for file in there.iterdir()} == {*sent, "README.md", *of_others}


def test_push_to_hub_of_our_classes_is_read_back_with_equal_ids(hub: str, tmp_path: Path) -> None:
    directory = float_model()
    process(PUSH, hub, tmp_path, directory, "someone/pushed")
    read = process(READ, hub, tmp_path, "someone/pushed", json.dumps(PROMPTS[:3]))
    assert json.loads(read) == ours(PROMPTS[:3])


def test_a_token_that_may_not_write_is_told(finished: Path, hub: str, tmp_path: Path) -> None:
    arguments = ("publish", finished, "someone/cat", "--license", "mit")
    with pytest.raises(AssertionError, match=r"cannot be published: .*401.*`hf auth login`"):
        process(PUBLISH, hub, tmp_path, *arguments, token="hf_other")
