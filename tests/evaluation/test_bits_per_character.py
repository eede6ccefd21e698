from __future__ import annotations

import copy
import math

import pytest
import torch

from gpt_neox_japanese.errors import CheckpointError, DataError
from gpt_neox_japanese.evaluation.bits_per_character import LanguageModelMetrics, bits_per_character
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.tokenizer.codec import Codec
from tests.model.small import small_model
from tests.tokenizer.small import vocabulary

TEXT = "吾輩は猫である。名前はまだ無い。"
WINDOW = 8


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(vocabulary(sorted(set(TEXT))), legacy=False)


@pytest.fixture(scope="module")
def model(codec: Codec) -> GPTNeoXJapaneseForCausalLM:
    config = {"num_hidden_layers": 2, "max_position_embeddings": WINDOW, "initializer_range": 0.5}
    return small_model(codec, **config).eval()


@torch.no_grad()
def nats_one_by_one(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec, text: str, stride: int
) -> float:
    """Every token from a forward pass of its own, with the context its window gives it."""
    eos = codec.vocabulary.ids["<|endoftext|>"]
    ids = [eos, *codec.encode(text), eos]
    nats = 0.0
    for target in range(1, len(ids)):
        end = WINDOW if target <= WINDOW else WINDOW + stride * -(-(target - WINDOW) // stride)
        first = max(min(end, len(ids) - 1) - WINDOW, 0)
        logits = model(input_ids=torch.tensor([ids[first:target]])).logits[0, -1]
        nats -= logits.log_softmax(-1)[ids[target]].item()
    return nats


def padded(model: GPTNeoXJapaneseForCausalLM) -> GPTNeoXJapaneseForCausalLM:
    """The same model with rows that no id has, and that would get nearly all probability."""
    twin = copy.deepcopy(model)
    size = twin.config.vocab_size
    twin.resize_token_embeddings(size, pad_to_multiple_of=64, mean_resizing=False)
    rows = twin.get_input_embeddings().weight.data
    assert len(rows) > size
    rows[size:] = 100 * torch.randn_like(rows[size:])
    return twin


def measure(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec, texts: list[str], **k: int
) -> LanguageModelMetrics:
    return bits_per_character(model, codec, texts, **k)


@pytest.mark.parametrize("stride", [1, 3, WINDOW])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_bits_are_those_of_predicting_each_token_alone(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec, stride: int, batch_size: int
) -> None:
    texts = [TEXT[:3], TEXT * 2, TEXT[: WINDOW - 1], TEXT[:WINDOW], "猫"]
    found = measure(model, codec, texts, stride=stride, batch_size=batch_size)
    nats = sum(nats_one_by_one(model, codec, text, stride) for text in texts)
    characters = sum(map(len, texts))
    assert found.bits_per_character == pytest.approx(nats / math.log(2) / characters, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(found.bits_per_character / 3, rel=1e-9)
    assert found.perplexity == pytest.approx(math.exp(nats / (characters + 5)), rel=1e-4)
    assert (found.documents, found.characters, found.bytes) == (5, characters, 3 * characters)
    assert found.tokens == characters + 5  # the end of each text is predicted, too


def test_a_model_that_knows_nothing_needs_the_bits_of_its_vocabulary(codec: Codec) -> None:
    size = len(codec.vocabulary)
    config = GPTNeoXJapaneseConfig(
        vocab_size=size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=WINDOW,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPTNeoXJapaneseForCausalLM(config)
    torch.nn.init.zeros_(model.embed_out.weight)
    found = measure(model, codec, [TEXT])
    assert found.perplexity == pytest.approx(size, rel=1e-5)
    bits = math.log2(size) * (len(TEXT) + 1) / len(TEXT)
    assert found.bits_per_character == pytest.approx(bits, rel=1e-5)


def test_texts_do_not_see_each_other(model: GPTNeoXJapaneseForCausalLM, codec: Codec) -> None:
    one, two = (measure(model, codec, [text]) for text in (TEXT, TEXT[::-1]))
    both = measure(model, codec, [TEXT, TEXT[::-1]])
    mean = (one.bits_per_character + two.bits_per_character) / 2
    assert both.bits_per_character == pytest.approx(mean, rel=1e-5)


def test_nothing_to_read_and_impossible_strides_are_refused(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec
) -> None:
    with pytest.raises(DataError, match="no text"):
        measure(model, codec, [])
    with pytest.raises(DataError, match="stride 9 is not between 1 and the model's window, 8"):
        measure(model, codec, [TEXT], stride=9)


def test_a_perplexity_that_no_float_holds_is_infinite_and_the_bits_are_told(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec
) -> None:
    diverged = copy.deepcopy(model)
    diverged.embed_out.weight.data *= 1e5
    found = measure(diverged, codec, [TEXT])
    assert found.perplexity == math.inf
    assert 710 / math.log(2) < found.bits_per_character < math.inf


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec, broken: float
) -> None:
    twin = copy.deepcopy(model)
    twin.embed_out.weight.data[0] = broken
    with pytest.raises(CheckpointError, match="scores are not finite"):
        measure(twin, codec, [TEXT])


def test_batches_without_windows_are_refused(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec
) -> None:
    with pytest.raises(DataError, match="batch_size is 0"):
        measure(model, codec, [TEXT], batch_size=0)


def test_rows_that_pad_a_model_get_no_probability(
    model: GPTNeoXJapaneseForCausalLM, codec: Codec
) -> None:
    texts = [TEXT, TEXT[:3]]
    found, expected = measure(padded(model), codec, texts), measure(model, codec, texts)
    assert found.bits_per_character == pytest.approx(expected.bits_per_character, rel=1e-5)
