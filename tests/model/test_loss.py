"""The loss: what it counts, and that slices of it are the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.loss.loss_utils import ForCausalLMLoss

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model import loss as loss_module
from gpt_neox_japanese.model.head_loss import can_use_head_loss
from gpt_neox_japanese.model.loss import causal_lm_loss
from tests.model.conftest import MakeModel
from tests.model.operations import Operations

IDS = torch.randint(3, 61, (3, 12), generator=torch.Generator().manual_seed(0))
LABELS = IDS.masked_fill(IDS % 5 == 0, -100)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven positions at a time: 36 do not divide evenly."""
    monkeypatch.setattr(loss_module, "_SLICE", 7 * 61)


def gradients(model: nn.Module, **inputs: Any) -> list[Tensor]:
    model.zero_grad()
    loss = model(IDS, **inputs).loss
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("extra", [{}, {"num_items_in_batch": 50}, {"ignore_index": 7}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_slices_add_up_to_the_loss_of_transformers(
    small_slices: None, dtype: torch.dtype, extra: dict[str, Any]
) -> None:
    logits = torch.randn(3, 12, 61, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = LABELS.masked_fill(LABELS == -100, extra.get("ignore_index", -100))
    results = []
    for function in (causal_lm_loss, ForCausalLMLoss):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf, labels, 61, **extra)
        loss.backward()
        assert loss.dtype == torch.float32
        results.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("extra", [{}, {"num_items_in_batch": torch.tensor(50)}], ids=str)
def test_skipping_the_logits_changes_neither_loss_nor_gradients(
    tiny_model: MakeModel, small_slices: None, extra: Any
) -> None:
    model = tiny_model()
    assert model(IDS, labels=LABELS, skip_logits=True).logits is None
    skipped = gradients(model, labels=LABELS, skip_logits=True, **extra)
    whole = gradients(model, labels=LABELS, **extra)
    torch.testing.assert_close(skipped, whole)


def test_the_head_never_scores_more_than_a_slice_when_logits_are_skipped(
    tiny_model: MakeModel, small_slices: None
) -> None:
    model = tiny_model()
    scored = []
    model.embed_out.register_forward_hook(lambda _m, _i, logits: scored.append(logits.numel()))
    gradients(model, labels=LABELS, skip_logits=True)
    assert max(scored) == 7 * 61
    assert sum(scored) == 2 * 36 * 61  # once forwards, once more for the gradient


def test_with_its_head_the_loss_scores_every_position_once(
    tiny_model: MakeModel, small_slices: None
) -> None:
    model, scored = tiny_model(), []
    with Operations() as operations:
        gradients(model, labels=LABELS, skip_logits=True)
    for (_, left), (_, right) in operations.products:
        if left[1] == 32 and 61 in (left[0], right[1]):  # hidden states and the head
            scored.append(left[0] if right[1] == 61 else right[1])
    assert scored == [7, 7, 7, 7, 7, 1]


@pytest.mark.parametrize("frozen", ["embed_out", "gpt_neox_japanese"])
def test_what_is_frozen_has_no_gradient(
    tiny_model: MakeModel, small_slices: None, frozen: str
) -> None:
    model = tiny_model(tie_word_embeddings=False)
    model.get_submodule(frozen).requires_grad_(False)
    found = []
    for skip_logits in (True, False):
        model.zero_grad()
        model(IDS, labels=LABELS, skip_logits=skip_logits).loss.backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert found[0]
    assert not any(name.startswith(frozen) for name in found[0])
    torch.testing.assert_close(*found)


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong(tiny_model: MakeModel) -> None:
    model = tiny_model()
    loss = model(IDS, labels=LABELS, skip_logits=True).loss
    with pytest.raises(ValueError, match="pass skip_logits=False"):
        torch.autograd.grad(loss, [model.embed_out.weight], create_graph=True)


def test_in_autocast_head_and_loss_agree_with_the_plain_way(
    tiny_model: MakeModel, small_slices: None
) -> None:
    model = tiny_model(hidden_size=64)
    with torch.autocast("cpu", torch.bfloat16):
        skipped = gradients(model, labels=LABELS, skip_logits=True)
        whole = gradients(model, labels=LABELS)
    torch.testing.assert_close(skipped, whole, rtol=0.05, atol=0.01)


def test_gradients_that_would_vanish_in_float16_are_left_to_autograd(tiny_model: MakeModel) -> None:
    model = tiny_model()
    states = torch.zeros(1, model.config.hidden_size)
    assert can_use_head_loss(model.embed_out, states)
    with torch.autocast("cpu", torch.bfloat16):
        assert can_use_head_loss(model.embed_out, states)
    with torch.autocast("cpu", torch.float16):
        assert not can_use_head_loss(model.embed_out, states)
    assert not can_use_head_loss(model.half().embed_out, states)


def test_logits_can_be_skipped_in_training_only(tiny_model: MakeModel) -> None:
    model = tiny_model(attention_dropout=0.0).train()
    model.skip_logits_in_training = True
    trained = model(IDS, labels=LABELS)
    assert trained.logits is None
    assert model(IDS).logits is not None
    assert model(IDS, labels=LABELS, skip_logits=False).logits is not None
    judged = model.eval()(IDS, labels=LABELS)
    assert judged.logits is not None
    torch.testing.assert_close(judged.loss, trained.loss)


def test_skipping_logits_without_labels_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="skip_logits=True leaves only the model's own loss"):
        tiny_model()(IDS, skip_logits=True)


def test_a_loss_function_of_the_users_own_is_used(tiny_model: MakeModel) -> None:
    model = tiny_model()
    model.loss_function = lambda logits, **_: logits.sum() * 0 + 5
    assert model(IDS, labels=LABELS).loss.item() == 5
    with pytest.raises(ValueError, match="skip_logits=True leaves only the model's own loss"):
        model(IDS, labels=LABELS, skip_logits=True)


@pytest.mark.parametrize("skip_logits", [False, True])
@pytest.mark.parametrize("extra", [{}, {"num_items_in_batch": torch.tensor(0)}], ids=str)
def test_a_batch_in_which_nothing_counts_has_no_loss_and_no_gradient(
    tiny_model: MakeModel, skip_logits: bool, extra: Any
) -> None:
    nothing = torch.full_like(IDS, -100)
    loss, *grads = gradients(tiny_model(), labels=nothing, skip_logits=skip_logits, **extra)
    assert loss.item() == 0
    assert not any(grad.any() for grad in grads)


def test_labels_may_come_shifted(tiny_model: MakeModel) -> None:
    model = tiny_model()
    shifted = torch.nn.functional.pad(LABELS[:, 1:], (0, 1), value=-100)
    expected = model(IDS, labels=LABELS).loss
    torch.testing.assert_close(model(IDS, labels=LABELS, shift_labels=shifted).loss, expected)
    torch.testing.assert_close(model(IDS, shift_labels=shifted, skip_logits=True).loss, expected)


@pytest.mark.parametrize("skip_logits", [False, True])
def test_rows_of_the_head_that_are_no_tokens_can_be_left_out(
    tiny_model: MakeModel, small_slices: None, skip_logits: bool
) -> None:
    model = tiny_model()
    found = model(IDS, labels=LABELS % 50, num_ids=50, skip_logits=skip_logits).loss
    expected = causal_lm_loss(model(IDS).logits[..., :50], LABELS % 50, 50)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("num_ids", [0, -1, 2.5])
def test_a_number_of_ids_that_is_none_is_refused(tiny_model: MakeModel, num_ids: Any) -> None:
    with pytest.raises(ArgumentError, match="num_ids is"):
        tiny_model()(IDS, labels=LABELS, num_ids=num_ids)


def test_a_double_precision_model_has_a_double_precision_loss(tiny_model: MakeModel) -> None:
    assert tiny_model().double()(IDS, labels=LABELS).loss.dtype == torch.float64


@pytest.mark.parametrize("skip_logits", [False, True])
def test_a_sliced_loss_compiles_to_one_graph(
    tiny_model: MakeModel, small_slices: None, skip_logits: bool
) -> None:
    model = tiny_model(attention_dropout=0.0, num_hidden_layers=1).train()
    expected = gradients(model, labels=LABELS, use_cache=False, skip_logits=skip_logits)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    model.zero_grad()
    loss = compiled(IDS, labels=LABELS, use_cache=False, skip_logits=skip_logits).loss
    loss.backward()
    actual = [loss.detach(), *(parameter.grad for parameter in model.parameters())]
    torch.testing.assert_close(actual, expected)
