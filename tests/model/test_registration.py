from __future__ import annotations

import pytest
import transformers
from packaging.version import Version
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseModel
from gpt_neox_japanese.model.registration import register


def test_auto_classes_load_ours(tiny_model, tmp_path):
    tiny_model().save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is GPTNeoXJapaneseConfig
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is GPTNeoXJapaneseForCausalLM
    assert type(AutoModel.from_pretrained(tmp_path)) is GPTNeoXJapaneseModel


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"),
    reason="older transformers refuse another model for a config class of their own",
)
def test_the_in_tree_config_builds_ours(pair):
    theirs = pair().theirs.config
    assert type(theirs) is InTreeConfig
    model = AutoModelForCausalLM.from_config(theirs)
    assert type(model) is GPTNeoXJapaneseForCausalLM
    assert model.config.rope_parameters == theirs.rope_parameters


def test_registering_twice_is_harmless():
    register()
    register()
