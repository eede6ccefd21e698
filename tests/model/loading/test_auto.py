"""One import, and transformers' Auto classes give ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig

import gpt_neox_japanese
from gpt_neox_japanese.model import heads
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM, GPTNeoXJapaneseModel
from tests.model.conftest import MakeConfig, MakeModel, MakePair

MODELS = [
    (AutoModel, GPTNeoXJapaneseModel),
    (AutoModelForCausalLM, GPTNeoXJapaneseForCausalLM),
    (AutoModelForQuestionAnswering, heads.GPTNeoXJapaneseForQuestionAnswering),
    (AutoModelForSequenceClassification, heads.GPTNeoXJapaneseForSequenceClassification),
    (AutoModelForTokenClassification, heads.GPTNeoXJapaneseForTokenClassification),
]


@pytest.mark.parametrize(("auto_class", "model_class"), MODELS)
def test_auto_classes_build_ours_for_a_directory_and_every_config(
    tiny_model: MakeModel, pair: MakePair, tmp_path: Path, auto_class: Any, model_class: Any
) -> None:
    tiny_model().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is GPTNeoXJapaneseConfig
    in_tree = pair().theirs.config
    assert type(in_tree) is InTreeConfig
    for model in (
        auto_class.from_pretrained(tmp_path),
        auto_class.from_config(config),
        auto_class.from_config(in_tree),
    ):
        assert type(model) is model_class
        assert model.config.rope_parameters == in_tree.rope_parameters


@pytest.fixture
def tokenizer_directory(reference_directory: Path, tiny_config: MakeConfig, tmp_path: Path) -> Path:
    """As transformers 4 published them: the tokenizer's class is named nowhere."""
    for name in ("vocab.txt", "emoji.json"):
        (tmp_path / name).write_bytes((reference_directory / name).read_bytes())
    tiny_config().save_pretrained(tmp_path)
    return tmp_path


def test_the_auto_tokenizer_gives_ours_for_a_directory_and_every_config(
    tokenizer_directory: Path,
) -> None:
    gpt_neox_japanese.register()
    ours = gpt_neox_japanese.GPTNeoXJapaneseTokenizer
    assert type(AutoTokenizer.from_pretrained(tokenizer_directory)) is ours
    for config in (GPTNeoXJapaneseConfig(), InTreeConfig()):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory, config=config)
        assert type(tokenizer) is ours


FRESH = """
import sys
import gpt_neox_japanese
assert not {"torch", "transformers", "numba"} & set(sys.modules), "the bare import is heavy"
{first_use}
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING
from transformers.models.gpt_neox_japanese import GPTNeoXJapaneseConfig as InTreeConfig
config = AutoConfig.for_model("gpt_neox_japanese")
classes = [type(config), TOKENIZER_MAPPING[type(config)], TOKENIZER_MAPPING[InTreeConfig]]
classes += [AutoModelForSequenceClassification._model_mapping[type(config)]]
for found in classes:
    assert found.__module__.startswith("gpt_neox_japanese."), found
"""


@pytest.mark.parametrize(
    "first_use",
    ["gpt_neox_japanese.register()", "from gpt_neox_japanese import GPTNeoXJapaneseTokenizer"],
)
def test_a_light_import_and_the_first_use_of_a_class_registers_all(first_use: str) -> None:
    code = FRESH.replace("{first_use}", first_use)
    subprocess.run([sys.executable, "-c", code], check=True)


BY_NAME = """
import sys
import transformers
import gpt_neox_japanese as package
{before}
from transformers import AutoConfig
names = [name for name in package.__all__ if name.startswith("GPTNeoXJapanese")]
for copy in (sys.modules["transformers"], transformers):
    for name in names:
        found = getattr(copy, name, None)  # as trl and others make a class of what config.json says
        in_tree = getattr(sys.modules["transformers.models.gpt_neox_japanese"], name, None)
        assert found is ({expected}), (name, found)
        assert in_tree is None or in_tree.__module__.startswith("transformers."), in_tree
"""


@pytest.mark.parametrize(
    ("before", "expected"),
    [("package.register()", "getattr(package, name)"), ("package.GPTNeoXJapaneseModel", "in_tree")],
    ids=["register()", "first use"],
)
def test_only_registering_gives_the_names_in_transformers_to_ours(
    before: str, expected: str
) -> None:
    code = BY_NAME.replace("{before}", before)
    subprocess.run([sys.executable, "-c", code.replace("{expected}", expected)], check=True)


def classes_in_transformers() -> dict[str, object]:
    """All that registering puts there, by where it is found."""
    config = GPTNeoXJapaneseConfig()
    found: dict[str, object] = {
        "config": type(AutoConfig.for_model("gpt_neox_japanese")),
        "tokenizers": [TOKENIZER_MAPPING[type(each)] for each in (config, InTreeConfig())],
    }
    for auto_class, _ in MODELS:
        mapping = auto_class._model_mapping
        found[auto_class.__name__] = [mapping[type(each)] for each in (config, InTreeConfig())]
    names = [name for name in gpt_neox_japanese.__all__ if name.startswith("GPTNeoXJapanese")]
    return found | {name: getattr(transformers, name) for name in names}


def test_registering_twice_is_as_registering_once() -> None:
    gpt_neox_japanese.register()
    once = classes_in_transformers()
    assert once["AutoModel"] == [GPTNeoXJapaneseModel] * 2
    gpt_neox_japanese.register()
    assert classes_in_transformers() == once
