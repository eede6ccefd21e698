from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from tests.model.conftest import MakeModel

PUBLISHED = {
    "architectures": ["GPTNeoXJapaneseForCausalLM"],
    "attention_dropout": 0.1,
    "bos_token_id": 31999,
    "eos_token_id": 31999,
    "hidden_act": "gelu",
    "hidden_dropout": 0.0,
    "hidden_size": 2560,
    "initializer_range": 0.02,
    "intermediate_multiple_size": 4,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox_japanese",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 20000,
    "rotary_pct": 0.5,
    "torch_dtype": "float32",
    "transformers_version": "4.23.0.dev0",
    "use_cache": False,
    "vocab_size": 32000,
}


def test_defaults_are_those_of_transformers() -> None:
    ours, theirs = GPTNeoXJapaneseConfig().to_dict(), InTreeConfig().to_dict()
    assert {name: ours[name] for name in theirs} == theirs


def test_documented_rotary_arguments_are_answered() -> None:
    config = GPTNeoXJapaneseConfig()
    assert (config.rotary_pct, config.rotary_emb_base) == (1.0, 10000)
    config = GPTNeoXJapaneseConfig(rotary_pct=0.25, rotary_emb_base=500)
    assert (config.rotary_pct, config.rotary_emb_base) == (0.25, 500)
    assert config.rope_parameters == {
        "rope_type": "default",
        "rope_theta": 500,
        "partial_rotary_factor": 0.25,
    }


def test_rope_parameters_mean_the_same() -> None:
    config = GPTNeoXJapaneseConfig(
        rope_parameters={"rope_theta": 500.0, "partial_rotary_factor": 0.25}
    )
    assert (config.rotary_pct, config.rotary_emb_base) == (0.25, 500.0)
    config.rotary_pct = 0.5
    config.rotary_emb_base = 70.0
    assert config.rope_parameters["partial_rotary_factor"] == 0.5
    assert config.rope_parameters["rope_theta"] == 70.0


def test_the_callers_rope_parameters_are_not_written_to() -> None:
    rope = {"rope_theta": 500.0}
    GPTNeoXJapaneseConfig(rope_parameters=rope)
    assert rope == {"rope_theta": 500.0}


def test_a_saved_config_is_the_same_config(tmp_path: Path) -> None:
    config = GPTNeoXJapaneseConfig(rotary_pct=0.25, hidden_size=64, num_attention_heads=4)
    config.save_pretrained(tmp_path)
    assert GPTNeoXJapaneseConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_transformers_4_and_5_find_their_rotary_names_in_a_saved_config(tmp_path: Path) -> None:
    GPTNeoXJapaneseConfig(rotary_pct=0.25).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["rotary_pct"], saved["rotary_emb_base"]) == (0.25, 10000)
    assert InTreeConfig.from_pretrained(tmp_path).rope_parameters == saved["rope_parameters"]


def test_the_published_config_loads(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    config = GPTNeoXJapaneseConfig.from_pretrained(tmp_path)
    assert (config.rotary_pct, config.rotary_emb_base) == (0.5, 20000)
    assert config.bos_token_id == 31999
    assert config.use_cache is False
    assert str(config.dtype) == "torch.float32"


def test_an_override_at_loading_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    assert GPTNeoXJapaneseConfig.from_pretrained(tmp_path, rotary_pct=1.0).rotary_pct == 1.0


LINEAR = {"rope_type": "linear", "factor": 2.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rotary_pct", 0.25),
        ("partial_rotary_factor", 0.25),
        ("rotary_emb_base", 500),
        ("rope_theta", 500),
        ("rope_parameters", LINEAR),
        ("rope_parameters", LINEAR | {"rope_theta": 500, "partial_rotary_factor": 0.25}),
        ("rope_parameters", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_parameters", None),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_scaling", None),
    ],
    ids=str,
)
def test_a_rotary_argument_means_the_same_assigned_or_given_at_loading(
    tmp_path: Path, name: str, value: Any
) -> None:
    expected = GPTNeoXJapaneseConfig(**{name: value}).rope_parameters
    assigned = GPTNeoXJapaneseConfig()
    assigned.save_pretrained(tmp_path)
    setattr(assigned, name, value)
    loaded = GPTNeoXJapaneseConfig.from_pretrained(tmp_path, **{name: value})
    for config in (assigned, loaded):
        assert config.rope_parameters == config.rope_scaling == expected
        assert config.to_dict()["rotary_pct"] == config.partial_rotary_factor == config.rotary_pct
        assert config.rope_theta == config.rotary_emb_base == expected["rope_theta"]


def test_what_an_argument_at_loading_does_not_name_stays_as_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    load = GPTNeoXJapaneseConfig.from_pretrained
    config = load(tmp_path, rope_scaling=LINEAR, rope_theta=500)
    assert config.rope_parameters == LINEAR | {"rope_theta": 500, "partial_rotary_factor": 0.5}
    config = load(tmp_path, rope_theta=500)
    assert (config.rotary_pct, config.rotary_emb_base) == (0.5, 500)
    config.rope_scaling = LINEAR
    assert config.rope_parameters == LINEAR | {"rope_theta": 500, "partial_rotary_factor": 0.5}


def test_rope_parameters_replace_all_that_there_was_as_in_transformers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    rope = LINEAR | {"rope_theta": 500}
    ours, theirs = (
        kind.from_pretrained(tmp_path, rope_parameters=dict(rope)).rope_parameters
        for kind in (GPTNeoXJapaneseConfig, InTreeConfig)
    )
    assert theirs == rope
    assert ours == rope | {"partial_rotary_factor": 1.0}  # which is what no number means


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": -3}, "vocab_size is -3"),
        ({"hidden_size": 33}, "hidden_size is 33, not divisible"),
        ({"hidden_act": "zz"}, "hidden_act is 'zz'"),
        ({"rotary_pct": 3}, "rotary_pct is 3; it must be in"),
        ({"rope_parameters": 3}, "rope_parameters is 3; it must be an object"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rotary_pct": 0.25, "rope_parameters": {"partial_rotary_factor": 0.5}}, "contradicts"),
    ],
    ids=str,
)
def test_absurd_values_at_loading_are_refused(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    with pytest.raises(ArgumentError, match=message):
        GPTNeoXJapaneseConfig.from_pretrained(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 30, "num_attention_heads": 4}, "hidden_size is 30, not divisible"),
        ({"vocab_size": 0}, "vocab_size is 0; it must be an integer, from 1"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1; it must be"),
        ({"intermediate_multiple_size": 0}, "intermediate_multiple_size is 0; it must be"),
        ({"rotary_pct": 0.0}, r"rotary_pct is 0.0; it must be in \(0, 1\]"),
        ({"rotary_pct": 1.5}, r"rotary_pct is 1.5; it must be in \(0, 1\]"),
        ({"rotary_pct": 0.1, "hidden_size": 32, "num_attention_heads": 4}, "rotates 0 of the 8"),
        ({"rotary_pct": 0.4, "hidden_size": 32, "num_attention_heads": 4}, "rotates 3 of the 8"),
        ({"rotary_emb_base": -1}, "rotary_emb_base is -1; it must be a number from 1"),
        ({"attention_dropout": 1.0}, "attention_dropout is 1.0; it must be a probability"),
        ({"hidden_dropout": -0.1}, "hidden_dropout is -0.1; it must be a probability"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0; it must be"),
        ({"initializer_range": -0.1}, "initializer_range is -0.1; it must be"),
        (
            {"rotary_pct": 0.5, "rope_parameters": {"partial_rotary_factor": 1.0}},
            "rotary_pct=0.5 contradicts",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "dtype": [1]}},
            r"rope_parameters has the dtype \[1\]; it must be a string",
        ),
        ({"own": {"part": {"dtype": 1.5}}}, r"own.part has the dtype 1.5; it must be a string"),
    ],
    ids=str,
)
def test_absurd_values_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTNeoXJapaneseConfig(**arguments)


@pytest.mark.parametrize("name", ["rotary_pct", "partial_rotary_factor", "rope_theta"])
def test_a_rotary_number_that_was_taken_away_is_refused(name: str) -> None:
    config = GPTNeoXJapaneseConfig()
    setattr(config, name, None)
    with pytest.raises(ArgumentError, match="is None; give it a number"):
        config.check()


def test_asking_for_attentions_chooses_the_implementation_that_has_them(
    tiny_model: MakeModel,
) -> None:
    assert tiny_model(output_attentions=True).config._attn_implementation == "eager"
    assert tiny_model().config._attn_implementation == "sdpa"


def test_an_object_within_itself_is_looked_at_once() -> None:
    own: dict[str, Any] = {}
    own["own"] = own
    assert GPTNeoXJapaneseConfig(own=own).own is own
    with pytest.raises(ValueError, match=r"has the dtype 1\.5"):
        GPTNeoXJapaneseConfig(own=own, other={"dtype": 1.5, "own": own})
