"""Everything `generate` can do: each way of it against the plainest one."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig, TextIteratorStreamer, pipeline
from transformers.generation import ContinuousBatchingConfig

import gpt_neox_japanese
from gpt_neox_japanese.model.decode.cache_names import cache_kwargs, cache_of
from tests.model.conftest import MakeModel

TEXTS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [5, 6, 5, 6, 5]]
GREEDY = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": 60, "pad_token_id": 0}


def alone(model: nn.Module, text: list[int], **options: Any) -> list[int]:
    """The continuation of one text by itself."""
    ids = torch.tensor([text])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), **(GREEDY | options))
    return output[0, len(text) :].tolist()


def left_padded(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    longest = max(map(len, texts))
    ids = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    return ids, (ids != 0).long()


def by_hand(model: nn.Module, text: list[int], tokens: int) -> list[int]:
    """Greedy search without a cache, a batch, or `generate`."""
    ids = list(text)
    for _ in range(tokens):
        ids.append(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
        if ids[-1] == GREEDY["eos_token_id"]:
            break
    return ids[len(text) :]


def test_greedy_search_takes_the_best_token_each_time(tiny_model: MakeModel) -> None:
    model = tiny_model()
    for text in TEXTS:
        assert alone(model, text) == by_hand(model, text, 8)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("cache", [None, "static"])
def test_a_left_padded_batch_continues_like_its_texts_alone(
    tiny_model: MakeModel, implementation: str, cache: str | None
) -> None:
    model = tiny_model()
    model.set_attn_implementation(implementation)
    ids, mask = left_padded(TEXTS)
    together = model.generate(ids, attention_mask=mask, cache_implementation=cache, **GREEDY)
    for text, continued in zip(TEXTS, together[:, ids.shape[1] :].tolist(), strict=True):
        expected = alone(model, text)
        assert continued[: len(expected)] == expected
        assert set(continued[len(expected) :]) <= {0}


def test_beams_find_a_likelier_text_than_greedy_search(tiny_model: MakeModel) -> None:
    model = tiny_model()
    beams = {"num_beams": 4, "num_return_sequences": 3, "length_penalty": 0.0}
    ids = torch.tensor([TEXTS[0]])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY, **beams)
    greedy = model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY)
    assert found.shape == (3, 14)
    assert len({tuple(row) for row in found.tolist()}) == 3

    def likelihood(row: Any) -> float:
        scores = model(row[None]).logits[0].log_softmax(-1)
        return scores[5:-1].gather(1, row[6:, None]).sum().item()

    likelihoods = [likelihood(row) for row in found]
    assert likelihoods == sorted(likelihoods, reverse=True)
    assert likelihoods[0] >= likelihood(greedy[0]) - 1e-5


def test_samples_of_one_text_differ_and_a_seed_repeats_them(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids = torch.tensor([TEXTS[0]])
    options = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": 8}
    runs = []
    for _ in range(2):
        torch.manual_seed(3)
        runs.append(model.generate(ids, attention_mask=torch.ones_like(ids), **options).tolist())
    assert runs[0] == runs[1]
    assert len(set(map(tuple, runs[0]))) == 4


@pytest.mark.parametrize("assistant", ["the model itself", "another model"])
def test_an_assistant_changes_no_token(tiny_model: MakeModel, assistant: str) -> None:
    model = tiny_model()
    helper = tiny_model(seed=0 if assistant == "the model itself" else 9)
    for text in TEXTS:
        assert alone(model, text, assistant_model=helper) == alone(model, text)


@pytest.fixture(scope="module")
def default() -> tuple[Any, Any]:
    """The model in the package, and its tokenizer."""
    directory = gpt_neox_japanese.default_model_directory()
    model = gpt_neox_japanese.GPTNeoXJapaneseForCausalLM.from_pretrained(directory).eval()
    return model, gpt_neox_japanese.GPTNeoXJapaneseTokenizer.from_pretrained(directory)


@pytest.mark.parametrize(
    "options",
    [
        {"stop_strings": ["。"]},
        {"stop_strings": ["。"], "num_beams": 2},
        {"token_healing": True},
        {"assistant_tokenizer": True},
        {"assistant_early_exit": 1},
        {"prompt_lookup_num_tokens": 3},
        {"guidance_scale": 1.5},
        {"use_cache": False, "stop_strings": ["。"]},
        {"prefill_chunk_size": 3, "stop_strings": ["。"]},
        {"output_hidden_states": [0, -1]},
    ],
    ids=str,
)
def test_what_generate_drags_along_does_not_disturb_the_model(
    default: tuple[Any, Any], options: dict[str, Any]
) -> None:
    model, tokenizer = default
    given = tokenizer("吾輩は猫である。名前は", return_tensors="pt")
    options = options | {"max_new_tokens": 24, "do_sample": False}
    plain = {"max_new_tokens": 24, "do_sample": False, "num_beams": options.get("num_beams", 1)}
    if "assistant_tokenizer" in options:
        options["assistant_tokenizer"] = tokenizer
    written = tokenizer.decode(model.generate(**given, tokenizer=tokenizer, **options)[0])
    assert written.startswith("吾輩は猫である。")
    if "stop_strings" in options:
        assert written.endswith("。")
    if "stop_strings" not in options and not {"token_healing", "guidance_scale"} & options.keys():
        assert written == tokenizer.decode(model.generate(**given, **plain)[0])


def test_a_misspelt_argument_of_generate_is_refused(default: tuple[Any, Any]) -> None:
    model, tokenizer = default
    with pytest.raises(ValueError, match="stop_strngs"):
        model.generate(**tokenizer("吾輩は", return_tensors="pt"), stop_strngs=["。"])


def test_the_pipeline_stops_at_a_sequence(default: tuple[Any, Any]) -> None:
    write = pipeline("text-generation", model=default[0], tokenizer=default[1])
    options = {"do_sample": False, "max_new_tokens": 60, "return_full_text": False}
    (answer,) = write("吾輩は猫である。名前は", stop_sequence="。", **options)
    assert answer["generated_text"].endswith("。")
    assert answer["generated_text"].count("。") == 1


def test_prompt_lookup_changes_no_token(tiny_model: MakeModel) -> None:
    model = tiny_model()
    for text in TEXTS:
        assert alone(model, text, prompt_lookup_num_tokens=3) == alone(model, text)


def test_a_text_may_be_given_as_embeddings(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids, mask = left_padded(TEXTS)
    embedded = model.get_input_embeddings()(ids)
    continued = model.generate(inputs_embeds=embedded, attention_mask=mask, **GREEDY)
    whole = model.generate(ids, attention_mask=mask, **GREEDY)
    assert continued.tolist() == whole[:, ids.shape[1] :].tolist()


def test_a_cache_carries_a_conversation_on(tiny_model: MakeModel) -> None:
    model = tiny_model()
    first = torch.tensor([TEXTS[0]])
    result = model.generate(
        first, attention_mask=torch.ones_like(first), return_dict_in_generate=True, **GREEDY
    )
    longer = torch.cat([result.sequences, torch.tensor([TEXTS[1]])], dim=1)
    mask = torch.ones_like(longer)
    carried = model.generate(
        longer, attention_mask=mask, **cache_kwargs(cache_of(result)), **GREEDY
    )
    assert carried.tolist() == model.generate(longer, attention_mask=mask, **GREEDY).tolist()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_a_model_in_training_that_checkpoints_generates_with_a_cache(tiny_model: MakeModel) -> None:
    model = tiny_model(attention_dropout=0.0)
    expected = alone(model, TEXTS[0])
    model.train()
    model.gradient_checkpointing_enable()
    assert alone(model, TEXTS[0]) == expected


@pytest.mark.filterwarnings("ignore")  # of accelerators that are not there
def test_continuous_batching_continues_like_generate(tiny_model: MakeModel) -> None:
    model = tiny_model()
    expected = [alone(model, text) for text in TEXTS]
    for implementation in ("sdpa", "paged|eager"):
        model.set_attn_implementation(implementation)
        results = model.generate_batch(
            inputs=TEXTS,
            generation_config=GenerationConfig(**GREEDY),
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=32, block_size=32, max_batch_tokens=16
            ),
            progress_bar=False,
        )
        tokens = {tuple(r.prompt_ids): r.generated_tokens for r in results.values()}
        assert [tokens[tuple(text)] for text in TEXTS] == expected


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own modules
def test_a_static_cache_compiles_to_one_graph(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids, mask = left_padded(TEXTS)
    expected = model.generate(ids, attention_mask=mask, **GREEDY)
    torch.compiler.reset()
    model.forward = torch.compile(model.forward, fullgraph=True, backend="aot_eager")
    compiled = model.generate(ids, attention_mask=mask, cache_implementation="static", **GREEDY)
    assert compiled.tolist() == expected.tolist()


class Letters:
    """As much of a tokenizer as a streamer needs."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(0x4E00 + i) for i in ids)


def test_a_streamer_tells_the_text_as_it_grows(tiny_model: MakeModel) -> None:
    model = tiny_model()
    expected = Letters().decode(alone(model, TEXTS[0]))
    streamer = TextIteratorStreamer(Letters(), skip_prompt=True, timeout=60)
    writer = threading.Thread(target=alone, args=(model, TEXTS[0]), kwargs={"streamer": streamer})
    writer.start()
    pieces = list(streamer)
    writer.join()
    assert "".join(pieces) == expected
    assert len([piece for piece in pieces if piece]) > 1


def test_the_pipeline_writes_on(
    tiny_model: MakeModel, reference_directory: Path, tmp_path: Path
) -> None:
    gpt_neox_japanese.register()
    tiny_model(vocab_size=32000).save_pretrained(tmp_path)
    for name in ("vocab.txt", "emoji.json"):
        (tmp_path / name).write_bytes((reference_directory / name).read_bytes())
    write = pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert type(write.model).__module__ == "gpt_neox_japanese.model.modeling"
    (text,) = write(
        "吾輩は猫", generation_config=GenerationConfig(max_new_tokens=3, pad_token_id=0)
    )
    assert text["generated_text"].startswith("吾輩は猫")


def test_the_warnings_of_a_generation_come_once(tiny_model: MakeModel) -> None:
    model = tiny_model(max_position_embeddings=8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        ids, _ = left_padded(TEXTS)
        model(ids)
        model(ids)
        for text in TEXTS:
            alone(model, text)
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert len([m for m in messages if "no attention_mask" in m]) == 1
    assert len([m for m in messages if "max_position_embeddings" in m]) == 1
