from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.modeling import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.training.optim import muon
from gpt_neox_japanese.training.optim.optimizer import MuonAndAdamW


@pytest.fixture
def model() -> GPTNeoXJapaneseForCausalLM:
    torch.manual_seed(0)
    return GPTNeoXJapaneseForCausalLM(
        GPTNeoXJapaneseConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            attention_dropout=0.0,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


def step(model: GPTNeoXJapaneseForCausalLM, optimizer: MuonAndAdamW) -> float:
    ids = torch.arange(16)[None]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_hidden_matrices_are_muons_and_all_else_is_adamws(
    model: GPTNeoXJapaneseForCausalLM,
) -> None:
    optimizer = MuonAndAdamW(model, lr=1e-3, weight_decay=0.1)
    muon, embeddings, vectors = optimizer.param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 2)[1] for p in muon["params"]} == {
        "query_key_value",
        "dense",
        "dense_h_to_4h",
        "dense_4h_to_h",
    }
    assert [names[id(p)] for p in embeddings["params"]] == ["gpt_neox_japanese.embed_in.weight"]
    assert all(p.ndim == 1 for p in vectors["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    assert (muon["weight_decay"], embeddings["weight_decay"]) == (0.1, 0.1)
    assert vectors["weight_decay"] == 0.0


def test_every_parameter_moves_and_the_loss_falls(model: GPTNeoXJapaneseForCausalLM) -> None:
    optimizer = MuonAndAdamW(model, lr=1e-2, weight_decay=0.0)
    before = copy.deepcopy(model.state_dict())
    first = step(model, optimizer)
    assert all(not torch.equal(before[name], now) for name, now in model.state_dict().items())
    for _ in range(30):
        last = step(model, optimizer)
    assert last < first / 2


def test_a_schedule_reaches_both_optimizers(model: GPTNeoXJapaneseForCausalLM) -> None:
    optimizer = MuonAndAdamW(model, lr=1e-2, weight_decay=0.1)
    schedule = LambdaLR(optimizer, lambda done: float(done == 0))
    step(model, optimizer)
    schedule.step()
    before = copy.deepcopy(model.state_dict())
    step(model, optimizer)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_a_restored_state_continues_exactly(model: GPTNeoXJapaneseForCausalLM) -> None:
    optimizer = MuonAndAdamW(model, lr=1e-2, weight_decay=0.1)
    step(model, optimizer)
    other = copy.deepcopy(model)
    restored = MuonAndAdamW(other, lr=1.0, weight_decay=0.0)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for _ in range(2):
        step(model, optimizer)
        step(other, restored)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_matrices_that_are_stepped_together_move_as_each_alone(
    model: GPTNeoXJapaneseForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = copy.deepcopy(model)
    together = MuonAndAdamW(model, lr=1e-2, weight_decay=0.1)
    apart = MuonAndAdamW(alone, lr=1e-2, weight_decay=0.1)
    for _ in range(2):
        step(model, together)
        with monkeypatch.context() as patch:
            patch.setattr(muon, "_BATCH", 1)
            step(alone, apart)
    for parameter, expected in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-4)


def test_matrices_are_put_together_by_their_shape_up_to_a_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(muon, "_BATCH", 40)
    small, tall, large = (4, 4), (8, 2), (5, 5)
    matrices = [torch.zeros(shape) for shape in (small, tall, small, large, small, tall)]
    batches = [[tuple(m.shape) for m in batch] for batch in muon._batches(matrices)]
    assert batches == [[small, small], [large], [tall, tall], [small]]
    assert len({id(m) for batch in muon._batches(matrices) for m in batch}) == len(matrices)
