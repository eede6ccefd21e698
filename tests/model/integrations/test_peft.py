"""PEFT's adapters and prompts: what they add is there in training and in the text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from tests.model.conftest import MakeModel
from tests.model.operations import Operations

peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's and its dependencies' own

IDS = torch.tensor([[0, 0, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]])
MASK = (IDS != 0).long()
VIRTUAL, NEW = 5, 6
OPTIONS: dict[str, Any] = {
    "attention_mask": MASK,
    "max_new_tokens": NEW,
    "do_sample": False,
    "output_logits": True,
    "return_dict_in_generate": True,
}
PROMPTS = {
    "prefix": lambda: peft.PrefixTuningConfig("CAUSAL_LM", num_virtual_tokens=VIRTUAL),
    "prompt": lambda: peft.PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=VIRTUAL),
    "p-tuning": lambda: peft.PromptEncoderConfig(
        "CAUSAL_LM", num_virtual_tokens=VIRTUAL, encoder_hidden_size=16
    ),
}


def with_large_prompt(base: Any, kind: str) -> Any:
    """A model whose prompt is random, and so large that it must change the text."""
    model = peft.get_peft_model(base, PROMPTS[kind]()).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.prompt_encoder.parameters():
            parameter.normal_(0, 3)
    return model


@torch.no_grad()
def next_logits(model: Any, base: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """The scores of the next token, computed without `generate` and without an earlier step."""
    mask = torch.cat([torch.ones(2, VIRTUAL, dtype=torch.long), mask], dim=1)
    prompt = model.get_prompt(2)
    if isinstance(prompt, DynamicCache):
        positions = (mask.cumsum(1) - 1)[:, VIRTUAL:]
        output = base(ids, attention_mask=mask, position_ids=positions, past_key_values=prompt)
    else:
        embedded = torch.cat([prompt, base.get_input_embeddings()(ids)], dim=1)
        output = base(inputs_embeds=embedded, attention_mask=mask)
    return output.logits[:, -1]


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_learned_prompt_changes_the_text_as_computed_by_hand(
    tiny_model: MakeModel, kind: str
) -> None:
    base = tiny_model(eos_token_id=None)
    plain = base.generate(IDS, **OPTIONS).sequences
    model = with_large_prompt(base, kind)
    written = model.generate(input_ids=IDS, **OPTIONS)
    assert not torch.equal(written.sequences, plain)
    ids, mask = IDS, MASK
    for logits in written.logits:
        torch.testing.assert_close(logits, next_logits(model, base, ids, mask))
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, mask.new_ones(2, 1)], dim=1)
    assert torch.equal(written.sequences, ids)


@pytest.mark.parametrize("kind", PROMPTS)
def test_beams_and_samples_begin_with_a_learned_prompt(tiny_model: MakeModel, kind: str) -> None:
    model = with_large_prompt(tiny_model(eos_token_id=None), kind)
    greedy = model.generate(input_ids=IDS, **OPTIONS).sequences
    one_beam = model.generate(input_ids=IDS, **(OPTIONS | {"num_beams": 3, "max_new_tokens": 1}))
    assert torch.equal(one_beam.sequences, greedy[:, : IDS.shape[1] + 1])
    sampled = model.generate(input_ids=IDS, **(OPTIONS | {"do_sample": True, "top_k": 1}))
    assert torch.equal(sampled.sequences, greedy)


def test_a_learned_prefix_is_trained(tiny_model: MakeModel) -> None:
    model = peft.get_peft_model(tiny_model(), PROMPTS["prefix"]()).train()
    model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
    gradients = [p.grad for p in model.prompt_encoder.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("adapter", ["GloraConfig", "LoraConfig", "IA3Config"])
def test_adapters_stand_around_plain_linear_layers(tiny_model: MakeModel, adapter: str) -> None:
    targets = {"target_modules": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]}
    if adapter == "IA3Config":
        targets["feedforward_modules"] = ["dense_h_to_4h", "dense_4h_to_h"]
    model = peft.get_peft_model(tiny_model(), getattr(peft, adapter)(**targets)).train()
    model(input_ids=IDS, attention_mask=MASK, labels=IDS).loss.backward()
    assert any(p.grad is not None for p in model.parameters())


def test_the_layer_inside_an_adapter_has_the_fast_product(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = peft.LoraConfig(target_modules=["query_key_value", "dense"])
    model = peft.get_peft_model(tiny_model().bfloat16(), config)
    for without_half_units in (True, False):
        monkeypatch.setattr(
            "gpt_neox_japanese.model.decode.linear._WITHOUT_AVX512", without_half_units
        )
        with Operations() as operations:
            model(input_ids=IDS, attention_mask=MASK)
        # The adapters themselves are float32.
        assert (torch.bfloat16 in operations.product_dtypes) == (not without_half_units)


def test_tasks_of_a_poly_adapter_reach_it_through_generate(tiny_model: MakeModel) -> None:
    config = peft.PolyConfig(task_type="CAUSAL_LM", target_modules=["dense"], n_tasks=2)
    model = peft.get_peft_model(tiny_model(eos_token_id=None), config).eval()
    written = model.generate(input_ids=IDS, task_ids=torch.tensor([0, 1]), **OPTIONS)
    assert written.sequences.shape == (2, IDS.shape[1] + NEW)
