"""The model computes its definition, in every precision better than or as well as transformers."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.model import definition
from tests.model.conftest import MakeModel, MakePair


def random_shape(seed: int) -> dict[str, Any]:
    """A small configuration drawn by chance."""
    chance = random.Random(seed)
    heads = chance.choice([1, 2, 3, 5])
    size = chance.choice([4, 8, 16])
    return {
        "num_attention_heads": heads,
        "hidden_size": heads * size,
        "num_hidden_layers": chance.randint(1, 4),
        "intermediate_multiple_size": chance.randint(1, 5),
        "rotary_pct": chance.choice([0.5, 1.0]),
        "rotary_emb_base": chance.choice([100, 10000, 20000.5]),
        "layer_norm_eps": chance.choice([1e-5, 1e-3]),
        "tie_word_embeddings": chance.random() < 0.5,
        "max_position_embeddings": 64,
    }


@pytest.mark.parametrize("seed", range(12))
def test_a_random_model_computes_its_definition(tiny_model: MakeModel, seed: int) -> None:
    model = tiny_model(seed, **random_shape(seed)).double()
    texts = torch.randint(3, 61, (3, 10), generator=torch.Generator().manual_seed(seed))
    # Padding, a cache and pieces: nothing of that is in the definition.
    lengths = [10, 7, 4]
    mask = torch.tensor([[0] * (10 - n) + [1] * n for n in lengths])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    past, logits = None, []
    for start, end in ((0, 5), (5, 6), (6, 10)):
        out = model(
            texts[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            past_key_values=past,
            use_cache=True,
        )
        past = out.past_key_values
        logits.append(out.logits)
    logits = torch.cat(logits, dim=1)
    for row, length in enumerate(lengths):
        expected = definition.forward(
            model.state_dict(), model.config, texts[row, 10 - length :].tolist()
        )
        # The rotary tables are float32, also for this float64 model.
        torch.testing.assert_close(logits[row, -length:], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(12))
def test_a_random_model_learns_and_continues_like_the_one_in_transformers(
    pair: MakePair, seed: int
) -> None:
    models = pair(seed, **random_shape(seed))
    ids = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[0, 3] = -100  # what follows padding is nobody's to foretell
    losses = []
    for model in (models.ours, models.theirs):
        loss = model(ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1])
    for mine, theirs in zip(models.ours.parameters(), models.theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    greedy = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 9, "pad_token_id": 0}
    assert (
        models.ours.generate(ids, **greedy).tolist()
        == models.theirs.generate(ids, **greedy).tolist()
    )


def error(model: nn.Module, expected: Any, ids: Tensor) -> Any:
    """Relative error of the last sixteen positions: one position's rounding is a matter of luck."""
    logits = model(ids, use_cache=False).logits[0, -16:].double()
    return ((logits - expected[-16:]).norm(dim=-1) / expected[-16:].norm(dim=-1)).mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("position", "models"), [(16, 10), (500, 3), (1500, 1), (2047, 1)])
@torch.no_grad()
def test_half_precision_is_more_exact_than_transformers_at_its_best(
    pair: MakePair, dtype: torch.dtype, position: int, models: int
) -> None:
    ids = torch.randint(3, 61, (1, position + 1), generator=torch.Generator().manual_seed(1))
    ours = theirs = 0.0
    for seed in range(models):
        both = pair(seed, hidden_size=64, num_attention_heads=2)
        inv_freq = both.theirs.gpt_neox_japanese.rotary_emb.inv_freq.clone()
        for model in (both.ours, both.theirs):
            model.to(dtype)
        # Its best setting: the frequencies put back that the cast has ruined.
        both.theirs.gpt_neox_japanese.rotary_emb.inv_freq = inv_freq
        expected = definition.forward(both.ours.state_dict(), both.ours.config, ids[0].tolist())
        ours += error(both.ours, expected, ids)
        theirs += error(both.theirs, expected, ids)
    assert ours < theirs
