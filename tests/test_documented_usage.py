"""The two usage examples of transformers' documentation, run against a local directory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpt_neox_japanese import (
    GPTNeoXJapaneseConfig,
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseModel,
    GPTNeoXJapaneseTokenizer,
)


@pytest.fixture(scope="module")
def directory(reference_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published vocabulary beside random weights of a small shape."""
    directory = tmp_path_factory.mktemp("published")
    GPTNeoXJapaneseTokenizer(
        str(reference_directory / "vocab.txt"), str(reference_directory / "emoji.json")
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = GPTNeoXJapaneseConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    GPTNeoXJapaneseForCausalLM(config).save_pretrained(directory)
    return directory


def test_generation(directory: Path) -> None:
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory)
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    prompt = "人とAIが協調するためには、"
    input_ids = tokenizer(prompt, return_tensors="pt").input_ids
    gen_tokens = model.generate(input_ids, do_sample=True, temperature=0.9, max_length=20)
    gen_text = tokenizer.batch_decode(gen_tokens, skip_special_tokens=True)[0]
    assert gen_tokens.shape == (1, 20)
    assert gen_text.startswith(prompt)


def test_tokenizer(directory: Path) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    ids = tokenizer("吾輩は猫である🐯。実は慶応(慶應)大学出身")["input_ids"]
    assert ids == [
        *(30014, 26883, 26638, 27228, 25, 26650, 31732, 31679, 27809, 26638, 17749, 31592, 17749),
        *(31593, 321, 1281),
    ]
    assert tokenizer.decode(ids) == "吾輩は猫である🐯。実は慶応(慶応)大学出身"


def test_forward_returns_what_the_documentation_says(directory: Path) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    inputs = tokenizer("日本語のGPT-neoxがHugging Faceで使えます😀", return_tensors="pt")

    outputs = GPTNeoXJapaneseModel.from_pretrained(directory)(**inputs)
    assert outputs.last_hidden_state.shape == (*inputs.input_ids.shape, 32)

    config = GPTNeoXJapaneseConfig.from_pretrained(directory)
    config.is_decoder = True
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory, config=config)
    assert model(**inputs).logits.shape == (*inputs.input_ids.shape, 32000)


def test_default_configuration_is_the_documented_one() -> None:
    config = GPTNeoXJapaneseConfig()
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (32000, 2560, 32)
    assert (config.num_attention_heads, config.intermediate_multiple_size) == (32, 4)
    assert (config.rotary_pct, config.rotary_emb_base) == (1.0, 10000)
    assert (config.max_position_embeddings, config.initializer_range) == (2048, 0.02)
    assert (config.layer_norm_eps, config.use_cache, config.hidden_act) == (1e-5, True, "gelu")
    assert (config.bos_token_id, config.eos_token_id) == (31996, 31999)
    assert (config.attention_dropout, config.hidden_dropout) == (0.1, 0.0)
