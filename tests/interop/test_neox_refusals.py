"""What is refused of a checkpoint of gpt-neox, by its name."""

from __future__ import annotations

import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.interop.neox_checkpoints import from_neox
from gpt_neox_japanese.interop.neox_parts import NeoXParts
from tests.interop.neox import (
    FIRST,
    LAST,
    YML,
    change_options,
    change_part,
)


@pytest.mark.parametrize(
    ("file", "name"),
    [(f, n) for f in (FIRST, LAST) for n in ("attention.query_key_value", "mlp.linear1")]
    + [(FIRST, "attention.dense"), (LAST, "mlp.linear2")],
)
def test_a_bias_that_is_not_zero_is_refused_by_name(
    model: Path, step: Path, file: str, name: str
) -> None:
    def learn(part: dict[str, Any]) -> None:
        part[f"{name}.bias"][3] = 0.25

    for path in step.glob(file.replace("model_00", "model_*")):
        change_part(path, learn)
    with pytest.raises(CheckpointError, match=rf"{name}.bias is not zero \(the largest is 0.25\)"):
        from_neox(step, model, step.parent / "back")
    assert not (step.parent / "back").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("gpt_j_residual", True),
        ("pos_emb", "alibi"),
        ("norm", "rmsnorm"),
        ("num_kv_heads", 2),
        ("attention_config", [[["global", "local"], 1]]),
        ("activation", "swiglu"),
        ("sliding_window_width", 128),
        ("moe_num_experts", 4),
        ("use_qk_layernorm", True),
        ("num_attention_heads", "six"),
        ("num_layers", 10**12),
        ("num_layers", 1),
        ("hidden_size", 32),
        ("hidden_size", 0),
        ("layernorm_epsilon", "small"),
        ("layernorm_epsilon", float("nan")),
        ("rotary_emb_base", float("inf")),
        ("rotary_emb_base", 10**400),
        ("rotary_pct", 3.0),
        ("model_parallel_size", 4),
        ("max_position_embeddings", 2**40),
    ],
)
def test_what_this_architecture_has_not_is_refused_by_name(
    model: Path, step: Path, option: str, value: object
) -> None:
    change_options(step, **{option: value})
    with pytest.raises(CheckpointError, match=option):
        from_neox(step, model, step.parent / "back")


@pytest.mark.parametrize("option", ["model_parallel_size", "num_layers", "hidden_size"])
def test_a_number_of_thousands_of_digits_is_refused_by_name(
    model: Path, step: Path, option: str
) -> None:
    text = (step / YML).read_text()
    (step / YML).write_text(re.sub(rf"(?m)^{option}: .*", f"{option}: 0x{'f' * 5000}", text))
    with pytest.raises(CheckpointError, match=f"{option} is a huge int"):
        from_neox(step, model, step.parent / "back")


def test_a_huge_number_of_gpus_takes_no_memory(step: Path) -> None:
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="model_parallel_size is 1000000"):
        NeoXParts(step, num_layers=2, num_ranks=10**6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("option", ["pos_emb", "num_layers", "hidden_size"])
def test_an_option_without_which_gpt_neox_has_another_model_must_be_there(
    model: Path, step: Path, option: str
) -> None:
    options = yaml.safe_load((step / YML).read_text())
    del options[option]
    (step / YML).write_text(yaml.safe_dump(options))
    with pytest.raises(CheckpointError, match=option):
        from_neox(step, model, step.parent / "back")


def damage_add(part: dict[str, Any]) -> None:
    part["attention.rpe.weight"] = torch.ones(2)


def damage_drop(part: dict[str, Any]) -> None:
    del part["attention.dense.weight"]


def damage_shape(part: dict[str, Any]) -> None:
    part["attention.dense.weight"] = torch.ones(5, 12)


def damage_vector(part: dict[str, Any]) -> None:
    part["attention.dense.weight"] = torch.ones(12)


def damage_type(part: dict[str, Any]) -> None:
    part["attention.dense.weight"] = part["attention.dense.weight"].int()


def damage_double(part: dict[str, Any]) -> None:
    part["attention.dense.weight"] = part["attention.dense.weight"].double()


def damage_text(part: dict[str, Any]) -> None:
    part["attention.dense.weight"] = "weights"


def damage_norm(part: dict[str, Any]) -> None:
    part["input_layernorm.weight"] = torch.ones(7)


def damage_one_bias(part: dict[str, Any]) -> None:
    del part["mlp.linear1.bias"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_add, "attention.rpe.weight"),
        (damage_drop, "attention.dense.weight is missing"),
        (damage_shape, "attention.dense.weight"),
        (damage_vector, "attention.dense.weight"),
        (damage_type, "attention.dense.weight"),
        (damage_double, "float64"),
        (damage_text, "attention.dense.weight"),
        (damage_norm, "input_layernorm.weight"),
        (damage_one_bias, "mlp.linear1.bias is missing on some"),
    ],
)
def test_a_damaged_part_is_refused_by_file_and_name(
    model: Path, step: Path, damage: Callable[[dict[str, Any]], None], said: str
) -> None:
    change_part(step / FIRST, damage)
    with pytest.raises(CheckpointError, match=said):
        from_neox(step, model, step.parent / "back")
    assert not (step.parent / "back").exists()


def test_a_file_that_is_missing_or_one_too_many_is_named(model: Path, step: Path) -> None:
    shutil.copyfile(step / FIRST, step / "layer_09-model_00-model_states.pt")
    with pytest.raises(CheckpointError, match="has a part 9"):
        from_neox(step, model, step.parent / "back")
    (step / "layer_09-model_00-model_states.pt").unlink()
    (step / LAST).unlink()
    with pytest.raises(CheckpointError, match=LAST):
        from_neox(step, model, step.parent / "back")
    (step / LAST.replace("model_00", "model_01")).unlink()
    with pytest.raises(CheckpointError, match="no part 3"):
        from_neox(step, model, step.parent / "back")
    for path in step.glob("layer_*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"mp_rank_00_model_states\.pt' holds no weights"):
        from_neox(step, model, step.parent / "back")
    for path in step.glob("mp_rank_*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="has no layer_"):
        from_neox(step, model, step.parent / "back")


class Trap:
    """A pickle that would run something."""

    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('was run')",))


@pytest.mark.parametrize("file", [FIRST, "mp_rank_00_model_states.pt"])
def test_a_pickle_that_holds_more_than_data_is_not_run(model: Path, step: Path, file: str) -> None:
    torch.save({"module": Trap(), "attention.dense.weight": Trap()}, step / file)
    if file != FIRST:
        for path in step.glob("layer_*"):
            path.unlink()
    with pytest.raises(CheckpointError, match="holds something else than tensors"):
        from_neox(step, model, step.parent / "back")


@pytest.mark.parametrize("tag", ["../step", "/etc", "..", "", "none", "global_step9"])
def test_latest_leads_nowhere_else(model: Path, tmp_path: Path, tag: str) -> None:
    (tmp_path / "latest").write_text(tag)
    with pytest.raises(CheckpointError, match="latest"):
        from_neox(tmp_path, model, tmp_path / "back")


@pytest.mark.parametrize(
    "text", ["[1, 2]", "a: [", "a: !!python/name:os.system", "\udcff", "a: &a [*a]", "[" * 5000]
)
def test_a_configuration_that_is_none_is_refused(model: Path, step: Path, text: str) -> None:
    (step / YML).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"gpt-neox-japanese\.yml"):
        from_neox(step, model, step.parent / "back")


def test_options_that_contradict_each_other_are_refused(model: Path, step: Path) -> None:
    (step / "configs" / "other.yml").write_text("hidden-size: 48")
    with pytest.raises(CheckpointError, match="hidden_size is 24 and 48"):
        from_neox(step, model, step.parent / "back")
    shutil.rmtree(step / "configs")
    with pytest.raises(CheckpointError, match=r"has no \.yml file"):
        from_neox(step, model, step.parent / "back")


def test_another_vocabulary_is_refused(model: Path, step: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    lines = (other / "vocab.txt").read_text("utf-8").splitlines(keepends=True)
    (other / "vocab.txt").write_text("".join(lines[:700] + lines[-283:]), "utf-8")
    with pytest.raises(CheckpointError, match=r"8000 rows.*vocabulary of 983 ids"):
        from_neox(step, other, tmp_path / "back")
