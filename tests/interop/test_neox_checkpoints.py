"""Checkpoints of gpt-neox: what we write, and what comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.files.tensor_files import read_pickle, read_tensors
from gpt_neox_japanese.interop import neox_checkpoints
from gpt_neox_japanese.interop.neox_checkpoints import from_neox, to_neox
from tests.cli.run import assert_refused, run
from tests.interop.neox import (
    FIRST,
    IDS,
    LAST,
    YML,
    assert_same_weights,
    change_part,
    make_model,
    whole_file,
)


def add_pad_token(directory: Path) -> None:
    """A special token behind the vocabulary, whose id is `IDS`."""
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "pad_token": "<|pad|>"}), encoding="utf-8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("ranks", "tied"), [(1, True), (2, False), (3, True), (6, False)])
def test_there_and_back_every_bit_and_every_number_of_the_config_is_the_same(
    tmp_path: Path, dtype: torch.dtype, ranks: int, tied: bool
) -> None:
    source = make_model(
        tmp_path / "model",
        dtype,
        tie_word_embeddings=tied,
        rotary_pct=0.5,
        rotary_emb_base=5000,
        layer_norm_eps=1e-6,
        intermediate_multiple_size=3,
        attention_dropout=0.25,
        hidden_act="gelu_pytorch_tanh",
    )
    to_neox(source, tmp_path / "theirs", model_parallel=ranks)
    size = from_neox(tmp_path / "theirs", tmp_path / "theirs", tmp_path / "back")
    assert_same_weights(source, tmp_path / "back")
    assert size == sum(tensor.nbytes for tensor in read_tensors(source).values())
    for name in ("vocab.txt", "emoji.json", "tokenizer_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    ours, back = (
        json.loads((path / "config.json").read_text()) for path in (source, tmp_path / "back")
    )
    assert back == ours


def test_a_part_of_a_gpu_is_its_heads_and_its_channels(model: Path, written: Path) -> None:
    tensors = read_tensors(model)
    part = read_pickle(written / FIRST.replace("model_00", "model_01"))
    layer = "gpt_neox_japanese.layers.0."
    for ours, theirs in {
        "attention.query_key_value.weight": tensors[f"{layer}attention.query_key_value.weight"][
            36:
        ],
        "attention.dense.weight": tensors[f"{layer}attention.dense.weight"][:, 12:],
        "mlp.linear1.weight": tensors[f"{layer}mlp.dense_h_to_4h.weight"][48:],
        "mlp.linear2.weight": tensors[f"{layer}mlp.dense_4h_to_h.weight"][:, 48:],
        "input_layernorm.weight": tensors[f"{layer}input_layernorm.weight"],
        "mlp.linear1.bias": torch.zeros(48),
        "attention.dense.bias": torch.zeros(24),
    }.items():
        assert torch.equal(part[ours], theirs), ours
    # gpt-neox adds this bias on each GPU after their sum.
    last = tensors["gpt_neox_japanese.layers.1.attention.dense_bias"]
    for rank in range(2):
        part = read_pickle(written / LAST.replace("model_00", f"model_{rank:02}"))
        assert torch.equal(part["attention.dense.bias"], last)


def test_a_vocabulary_that_cannot_be_split_is_filled_up_with_zeros(
    model: Path, tmp_path: Path
) -> None:
    to_neox(model, tmp_path / "theirs", model_parallel=3)
    step = tmp_path / "theirs" / "global_step0"
    assert yaml.safe_load((step / YML).read_text())["make_vocab_size_divisible_by"] == 128
    parts = [read_pickle(step / f"layer_00-model_{rank:02}-model_states.pt") for rank in range(3)]
    table = torch.cat([part["word_embeddings.weight"] for part in parts])
    assert len(table) == 8064  # the next multiple of 3 * 128
    assert not table[IDS:].any()


def test_the_tokenizer_beside_it_knows_the_ids_and_never_makes_wrong_ones(written: Path) -> None:
    tokenizer = Tokenizer.from_file(str(written.parent / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == IDS
    assert tokenizer.token_to_id("<|endoftext|>") == 7999
    with pytest.raises(Exception, match="Missing"):
        tokenizer.encode("吾輩は猫である。")


def test_rows_that_only_pad_our_model_are_left_out(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model", vocab_size=IDS + 64)
    to_neox(source, tmp_path / "theirs")
    from_neox(tmp_path / "theirs", source, tmp_path / "back")
    name = "embed_out.weight"
    assert torch.equal(read_tensors(tmp_path / "back")[name], read_tensors(source)[name][:IDS])


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_special_tokens_that_the_model_has_no_rows_for_get_none(
    model: Path, tmp_path: Path, ranks: int
) -> None:
    source = shutil.copytree(model, tmp_path / "model")
    add_pad_token(source)
    to_neox(source, tmp_path / "theirs", model_parallel=ranks)
    tokenizer = Tokenizer.from_file(str(tmp_path / "theirs" / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == IDS  # of more ids gpt-neox would make more rows
    from_neox(tmp_path / "theirs", source, tmp_path / "back")
    assert_same_weights(source, tmp_path / "back")
    assert json.loads((tmp_path / "back/config.json").read_text())["vocab_size"] == IDS


@pytest.mark.parametrize("table", [None, "embed_in", "embed_out"])
def test_special_tokens_keep_the_rows_that_the_model_has_for_them(
    tmp_path: Path, table: str | None
) -> None:
    source = make_model(tmp_path / "model", vocab_size=IDS + 1)
    add_pad_token(source)
    tensors = read_tensors(source)
    for name in tensors:
        if table is not None and table in name:
            tensors[name][IDS] = 0  # as of a padding_idx; the other table has its row
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    to_neox(source, tmp_path / "theirs", model_parallel=3)
    from_neox(tmp_path / "theirs", source, tmp_path / "back")
    assert_same_weights(source, tmp_path / "back")


def test_a_head_of_its_own_is_kept_whatever_config_json_says(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(model, source)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    to_neox(source, tmp_path / "theirs")
    from_neox(tmp_path / "theirs", source, tmp_path / "back")
    assert_same_weights(source, tmp_path / "back")


def test_a_checkpoint_without_pipeline_parallelism_is_read(model: Path, step: Path) -> None:
    modules = [whole_file(step, rank) for rank in range(2)]
    states: dict[str, Any] = {  # of random numbers, as gpt-neox keeps them
        "random_rng_state": (3, (1, 2), None),
        "np_rng_state": np.random.RandomState(1).get_state(),
        "torch_rng_state": torch.get_rng_state(),
        "sparse_tensor_module_names": set(),
    }
    for rank, module in enumerate(modules):
        torch.save({"module": module, **states}, step / f"mp_rank_{rank:02}_model_states.pt")
    for path in step.glob("layer_*"):
        path.unlink()
    from_neox(step, model, step.parent / "back")
    assert_same_weights(model, step.parent / "back")


def test_names_of_older_versions_and_tables_that_are_computed_are_read(
    model: Path, step: Path
) -> None:
    def rename(part: dict[str, Any]) -> None:
        for name in [name for name in part if name.startswith("mlp.")]:
            old = name.replace("linear1", "dense_h_to_4h").replace("linear2", "dense_4h_to_h")
            part[old] = part.pop(name)
        part["attention.rotary_emb.inv_freq"] = torch.ones(2)

    for path in [*step.glob("layer_02-*"), *step.glob("layer_03-*")]:
        change_part(path, rename)
    from_neox(step, model, step.parent / "back")
    assert_same_weights(model, step.parent / "back")


def test_options_with_hyphens_numbers_as_texts_and_several_files_are_read(
    model: Path, step: Path
) -> None:
    options = yaml.safe_load((step / YML).read_text())
    options["layernorm_epsilon"] = "1e-5"
    first = {key.replace("_", "-"): options.pop(key) for key in list(options)[:9]}
    (step / YML).write_text(yaml.safe_dump(options))
    (step / "configs" / "sizes.yml").write_text("# comments\n" + json.dumps(first))
    from_neox(step, model, step.parent / "back")
    assert_same_weights(model, step.parent / "back")
    assert json.loads((step.parent / "back/config.json").read_text())["layer_norm_eps"] == 1e-5


def test_missing_biases_are_zeros(model: Path, step: Path) -> None:
    def drop(part: dict[str, Any]) -> None:
        for name in [n for n in part if n.endswith(".bias") and "layernorm" not in n]:
            del part[name]

    for path in [*step.glob("layer_02-*"), *step.glob("layer_03-*")]:
        change_part(path, drop)
    from_neox(step, model, step.parent / "back")
    bias = read_tensors(step.parent / "back")["gpt_neox_japanese.layers.1.attention.dense_bias"]
    assert not bias.any()


def test_copies_of_a_norm_that_drifted_apart_are_averaged(model: Path, step: Path) -> None:
    def drift(part: dict[str, Any]) -> None:
        part["norm.weight"] += 2

    change_part(step / "layer_05-model_01-model_states.pt", drift)
    from_neox(step, model, step.parent / "back")
    name = "gpt_neox_japanese.final_layer_norm.weight"
    expected = read_tensors(model)[name] + 1
    assert torch.allclose(read_tensors(step.parent / "back")[name], expected)


def test_large_models_come_in_several_files(
    model: Path, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neox_checkpoints, "_SHARD_BYTES", 20_000)
    from_neox(written, model, tmp_path / "back")
    assert len(list((tmp_path / "back").glob("model-*-of-*.safetensors"))) > 3
    assert_same_weights(model, tmp_path / "back")
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert all(torch.equal(loaded[name], t) for name, t in read_tensors(model).items())


@pytest.mark.parametrize("ranks", [0, 4, -1, 2000])
def test_a_model_cannot_be_split_over_any_number_of_gpus(
    model: Path, tmp_path: Path, ranks: int
) -> None:
    with pytest.raises(ArgumentError, match=str(ranks)):
        to_neox(model, tmp_path / "theirs", model_parallel=ranks)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_act": "tanh"}, "activation 'tanh'"),
        ({"rotary_emb_base": 0.5}, "rotary_emb_base is 0.5"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ({"quantization_config": {"bits": 8}}, "quantization_config"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"num_hidden_layers": 3}, "layers.2.*is missing"),
        ({"intermediate_multiple_size": 2}, "dense_h_to_4h"),
        ({"attn_implementation": "owner/kernel"}, "attn_implementation"),
    ],
)
def test_what_gpt_neox_has_not_is_refused_by_name(
    model: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    source = tmp_path / "model"
    shutil.copytree(model, source)
    config = json.loads((source / "config.json").read_text())
    for name in changes:
        config.pop("rope_parameters" if name.startswith("ro") else name, None)
    (source / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=said):
        to_neox(source, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("gpt_neox_japanese.layers.0.attention.dense.lora_A.weight", 1.0, "lora_A.*no tensor of"),
        ("gpt_neox_japanese.final_layer_norm.bias", float("nan"), "not finite"),
    ],
)
def test_tensors_that_would_be_lost_or_are_broken_are_refused_by_name(
    model: Path, tmp_path: Path, name: str, number: float, said: str
) -> None:
    source = shutil.copytree(model, tmp_path / "model")
    tensors = read_tensors(model) | {name: torch.full((24,), number)}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=said):
        to_neox(source, tmp_path / "theirs")


def test_an_adapter_is_not_left_behind(model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(model, tmp_path / "model")
    (source / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds an adapter"):
        to_neox(source, tmp_path / "theirs")


def test_weights_of_several_types_are_written_in_the_widest(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    shutil.copytree(model, source)
    tensors = {
        n: t.to(torch.bfloat16 if t.ndim == 2 else t.dtype) for n, t in read_tensors(model).items()
    }
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    to_neox(source, tmp_path / "theirs")
    options = yaml.safe_load((tmp_path / "theirs/global_step0" / YML).read_text())
    assert options["precision"] == "fp32"
    from_neox(tmp_path / "theirs", source, tmp_path / "back")
    assert all(
        torch.equal(t, tensors[n].float()) for n, t in read_tensors(tmp_path / "back").items()
    )


def test_the_command_writes_and_reads_checkpoints(model: Path, tmp_path: Path) -> None:
    theirs, back = tmp_path / "theirs", tmp_path / "back"
    options = ("--to", "gpt-neox", "--model-parallel", 2, "--output", theirs)
    result = run("convert", model, *options)
    assert result.exit_code == 0, result.output
    result = run("convert", "--from", "gpt-neox", theirs, "--vocabulary", model, "--output", back)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("MB of weights\n")
    assert_same_weights(model, back)


def test_the_command_says_which_options_belong_together(model: Path, tmp_path: Path) -> None:
    out = ("--output", tmp_path / "out")
    neox = ("convert", model, "--from", "gpt-neox", *out)
    assert_refused(run(*neox), "--vocabulary is missing")
    assert_refused(run(*neox, "--vocabulary", model, "--to", "int8"), "leave out --to int8")
    to = ("convert", model, "--to", "int8", *out)
    assert_refused(run(*to, "--vocabulary", model), "--vocabulary is for --from gpt-neox")
    assert_refused(run(*to, "--model-parallel", 2), "--model-parallel is for --to gpt-neox")
    assert_refused(run("convert", model, *out), "--to is missing")
