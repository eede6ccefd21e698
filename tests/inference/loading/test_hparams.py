from __future__ import annotations

from typing import Any

import pytest

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.loading.hparams import HParams
from tests.inference.networks import TINY


def test_both_spellings_of_the_rotary_numbers_are_read() -> None:
    new = {"rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 0.5}}
    old = {"rotary_emb_base": 500, "rotary_pct": 0.5}
    assert HParams.from_config(TINY | new) == HParams.from_config(TINY | old)
    assert HParams.from_config(TINY | old).rope_theta == 500
    assert HParams.from_config(TINY | old).rotary_dim == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'"),
        ({"num_attention_heads": 3}, "num_attention_heads, 3"),
        ({"rotary_pct": 0.01}, "rotary_pct is 0.01"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
        ({"rotary_emb_base": 0}, "rotary_emb_base is 0"),
        ({"rotary_emb_base": float("nan")}, "rotary_emb_base is nan"),
        ({"rope_parameters": {"rope_theta": "10000"}}, "rope_theta is '10000'"),
    ],
)
def test_senseless_config_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        HParams.from_config(TINY | changes)
