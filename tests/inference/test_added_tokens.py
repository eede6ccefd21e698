from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gpt_neox_japanese import (
    GPTNeoXJapaneseForCausalLM,
    GPTNeoXJapaneseTokenizer,
    TextGenerator,
)
from gpt_neox_japanese.errors import CheckpointError, GenerationError
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.sampling.sampler import SamplingParams
from tests.added_tokens import USER, WORD, save_model

GREEDY = SamplingParams(temperature=0)
PROMPT = f"猫は{WORD} 猫"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("padded")
    save_model(directory)
    return directory


@pytest.fixture(scope="module")
def generator(directory: Path) -> TextGenerator:
    return TextGenerator.load(directory, threads=1)


@torch.no_grad()
def expected(directory: Path, prompt: str, length: int) -> tuple[list[int], list[list[float]]]:
    """Ids that are chosen greedily among those of the tokenizer, and what they were chosen from."""
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    ids, rows = tokenizer(prompt)["input_ids"], []
    begin = len(ids)
    for _ in range(length):
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        assert logits.argmax() >= len(tokenizer)  # what a padded model would choose
        rows.append(logits[: len(tokenizer)].log_softmax(-1).tolist())
        ids.append(int(logits[: len(tokenizer)].argmax()))
    return ids[begin:], rows


def test_prompts_have_the_ids_of_the_class(directory: Path, generator: TextGenerator) -> None:
    tokenizer = GPTNeoXJapaneseTokenizer.from_pretrained(directory)
    assert generator.codec.encode(PROMPT) == tokenizer(PROMPT)["input_ids"]
    assert tokenizer.convert_tokens_to_ids(WORD) in generator.codec.encode(PROMPT)


def test_greedy_text_and_probabilities_are_those_of_the_model_without_its_padding(
    directory: Path, generator: TextGenerator
) -> None:
    ids, rows = expected(directory, PROMPT, 12)
    (found,) = generator.generate_details(
        PROMPT, max_new_tokens=12, temperature=0, logprobs=5, min_new_tokens=12
    )
    assert list(found.token_ids) == ids
    assert found.logprobs is not None
    assert found.top_logprobs is not None
    for token_id, logprob, top, row in zip(
        ids, found.logprobs, found.top_logprobs, rows, strict=True
    ):
        assert logprob == pytest.approx(row[token_id], abs=1e-3)
        assert list(top.values()) == pytest.approx(sorted(row, reverse=True)[:5], abs=1e-3)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.5}, {"temperature": 5.0}])
def test_padding_is_never_drawn(generator: TextGenerator, options: dict[str, float]) -> None:
    for seed in range(5):
        (found,) = generator.generate_details(
            PROMPT, max_new_tokens=30, seed=seed, sampling_params=SamplingParams(**options)
        )
        assert all(token_id < len(generator.codec) for token_id in found.token_ids)


def test_padding_is_no_id_to_ask_for(generator: TextGenerator) -> None:
    padding = len(generator.codec)
    with pytest.raises(GenerationError, match=f"ids are 0 to {padding - 1}"):
        generator.engine.submit([1, padding], max_new_tokens=1, params=GREEDY)
    with pytest.raises(GenerationError, match=f"logit_bias holds id {padding}"):
        generator.generate("猫", logit_bias={padding: 1.0})


def test_added_words_are_written_and_marks_are_hidden(generator: TextGenerator) -> None:
    ids = {token: generator.codec.token_to_id(token) for token in (WORD, USER)}
    bias = {ids[WORD]: 1e4}
    assert generator.generate("猫", max_new_tokens=2, logit_bias=bias, temperature=0) == WORD * 2
    bias = {ids[USER]: 1e4}
    (found,) = generator.generate_details("猫", max_new_tokens=2, logit_bias=bias, temperature=0)
    assert (found.text, found.token_ids) == ("", (ids[USER], ids[USER]))


def test_marks_that_a_prompt_spells_are_text(generator: TextGenerator) -> None:
    (found,) = generator.generate_details(f"猫{USER}", max_new_tokens=1, echo=True)
    assert found.text.startswith(f"猫{USER}")
    assert generator.codec.token_to_id(USER) not in generator.codec.encode(f"猫{USER}")


@pytest.mark.parametrize("in_generation_config", [False, True])
def test_text_ends_at_an_added_mark_that_the_model_names(
    tmp_path: Path, in_generation_config: bool
) -> None:
    save_model(tmp_path, end=USER)
    path = tmp_path / "generation_config.json"
    if not in_generation_config:
        path.unlink()
    generator = TextGenerator.load(tmp_path, threads=1)
    bias = {generator.codec.token_to_id(USER): 1e4}
    (found,) = generator.generate_details("猫", logit_bias=bias, temperature=0)
    assert (found.token_ids, found.finish_reason) == ((), "stop")


def test_mark_that_the_model_lacks_is_no_obstacle(directory: Path, tmp_path: Path) -> None:
    # `tokenizer.pad_token = …` without resizing: no text needs that row.
    size = save_model(tmp_path, end=USER)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path)
    model.resize_token_embeddings(size - 1)
    model.save_pretrained(tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.num_ids == size - 1
    generator = TextGenerator.load(tmp_path, threads=1)
    (found,) = generator.generate_details("猫", max_new_tokens=3, min_new_tokens=3, seed=1)
    assert len(found.token_ids) == 3


def test_word_that_the_model_lacks_is_told_with_its_remedy(tmp_path: Path) -> None:
    size = save_model(tmp_path)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path)
    model.resize_token_embeddings(size - 2)
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=rf"{WORD}.*resize_token_embeddings\({size}\)"):
        TextGenerator.load(tmp_path)


def test_untied_head_loses_its_padding_too(directory: Path, tmp_path: Path) -> None:
    size = save_model(tmp_path)
    model = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    model.config.tie_word_embeddings = False
    model.embed_out.weight = torch.nn.Parameter(model.embed_out.weight.detach().clone())
    model.save_pretrained(tmp_path)
    assert config["vocab_size"] % 64 == 0
    generator = TextGenerator.load(tmp_path, threads=1)
    (found,) = generator.generate_details("猫", max_new_tokens=20, seed=1)
    assert all(token_id < size for token_id in found.token_ids)
