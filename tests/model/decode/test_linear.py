"""Half precision multiplied in float32: the same products, more exact, in every mode."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from gpt_neox_japanese.model.decode.linear import linear, sdpa
from tests.model.conftest import MakeModel
from tests.model.operations import Operations

HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def without_half_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine is, treat it as one without the units."""
    monkeypatch.setattr("gpt_neox_japanese.model.decode.linear._WITHOUT_AVX512", True)


def same(dtype: torch.dtype, actual: Tensor, expected: Tensor) -> None:
    """Equal up to two roundings of `dtype`."""
    scale = expected.abs().max().item()
    torch.testing.assert_close(
        actual.double(), expected.double(), rtol=0, atol=2 * torch.finfo(dtype).eps * scale
    )


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("width", [5, 256, 700])
@pytest.mark.parametrize("rows", [9, 200])
def test_values_and_gradients_are_those_of_float64(
    dtype: torch.dtype, width: int, rows: int
) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(33, width, bias=False).to(dtype)
    states = torch.randn(2, rows, 33, dtype=dtype, requires_grad=True)
    direction = torch.randn(2, rows, width, dtype=dtype)
    with Operations() as operations:
        output = linear(layer, states)
        output.backward(direction)
    assert operations.product_dtypes == {torch.float32}
    assert states.grad is not None
    assert layer.weight.grad is not None
    assert output.dtype == states.grad.dtype == layer.weight.grad.dtype == dtype

    weight = layer.weight.detach().double().requires_grad_()
    exact = states.detach().double().requires_grad_()
    expected = nn.functional.linear(exact, weight)
    expected.backward(direction.double())
    assert exact.grad is not None
    assert weight.grad is not None
    same(dtype, output, expected)
    same(dtype, states.grad, exact.grad)
    same(dtype, layer.weight.grad, weight.grad)


def test_autocast_gives_half_precision_and_float32_gradients() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(8, 6, bias=False)
    states = torch.randn(4, 8, requires_grad=True)
    with Operations() as operations:
        with torch.autocast("cpu", torch.bfloat16):
            output = linear(layer, states)
        output.float().sum().backward()
    assert operations.product_dtypes == {torch.float32}
    assert output.dtype == torch.bfloat16
    assert states.grad is not None
    assert layer.weight.grad is not None
    assert states.grad.dtype == layer.weight.grad.dtype == torch.float32
    same(torch.bfloat16, output, nn.functional.linear(states, layer.weight))
    same(torch.bfloat16, states.grad, layer.weight.sum(0).expand(4, 8))


@pytest.mark.parametrize(
    ("dtype", "rows"), [(torch.float32, 9), (torch.float64, 9), (torch.float32, 2)]
)
def test_torch_keeps_what_it_does_well(dtype: torch.dtype, rows: int) -> None:
    layer = nn.Linear(8, 6, bias=False).to(dtype)
    states = torch.randn(rows, 8, dtype=dtype)
    with Operations() as ours:
        output = linear(layer, states)
    with Operations() as torchs:
        expected = nn.functional.linear(states, layer.weight)
    assert torch.equal(output, expected)
    assert ours.seen == torchs.seen


@pytest.mark.parametrize("rows", [3, 9, 600])
@pytest.mark.parametrize("width", [5, 1024, 1500])
@torch.no_grad()
def test_float32_by_blocks_is_float32(rows: int, width: int) -> None:
    torch.manual_seed(0)
    layer, states = nn.Linear(33, width, bias=False), torch.randn(rows, 33)
    with Operations() as operations:
        output = linear(layer, states)
    assert len(operations.products) == -(-width // 1024)
    torch.testing.assert_close(output, nn.functional.linear(states, layer.weight))


def test_a_weight_of_another_kind_is_left_to_its_own_product() -> None:
    class Quantised(torch.Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is nn.functional.linear:
                return torch.full((9, 6), 7)
            return super().__torch_function__(func, types, args, kwargs)

    layer = nn.Linear(8, 6, bias=False).bfloat16()
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantised))
    assert (linear(layer, torch.randn(9, 8, dtype=torch.bfloat16)) == 7).all()


def test_mixed_types_are_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        linear(nn.Linear(8, 6, bias=False).bfloat16(), torch.randn(9, 8))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("mask", ["none", "boolean", "added", "one for all"])
def test_attention_is_that_of_sdpa(dtype: torch.dtype, mask: str) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8, dtype=dtype).unbind()
    allowed = torch.ones(2, 1, 6, 6).tril().bool()
    allowed[0, ..., :1] = False
    allowed[0, :, 0, 0] = True
    added = torch.zeros(2, 1, 6, 6, dtype=dtype).masked_fill(~allowed, -torch.inf)
    given = {"none": None, "boolean": allowed, "added": added, "one for all": allowed[1:]}[mask]
    module = nn.Module()
    module.is_causal = True
    actual, _ = sdpa(module, query, key, value, given, scaling=0.5)
    wide = None if given is None else given if given.dtype == torch.bool else given.double()
    expected, _ = sdpa_attention_forward(
        module, query.double(), key.double(), value.double(), wide, scaling=0.5
    )
    assert actual.dtype == dtype
    same(dtype, actual, expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_whole_model_is_no_tenth_farther_from_float32_than_with_torchs_products(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    ids = torch.randint(3, 61, (2, 30), generator=torch.Generator().manual_seed(0))
    exact = tiny_model().to(dtype).float()
    model = copy.deepcopy(exact).to(dtype)
    expected = exact(ids).logits
    ours = (model(ids).logits - expected).norm()
    monkeypatch.setattr("gpt_neox_japanese.model.decode.linear._WITHOUT_AVX512", False)
    assert ours <= 1.1 * (model(ids).logits - expected).norm()


@pytest.mark.filterwarnings("ignore")  # of accelerators that are not there
@pytest.mark.parametrize("implementation", ["sdpa", "paged|eager"])
def test_continuous_batching_works_in_half_precision(
    tiny_model: MakeModel, implementation: str
) -> None:
    model = tiny_model().bfloat16()
    model.set_attn_implementation(implementation)
    (result,) = model.generate_batch(
        inputs=[[5, 6, 7, 8]],
        generation_config=GenerationConfig(
            max_new_tokens=4, do_sample=False, eos_token_id=60, pad_token_id=0
        ),
        continuous_batching_config=ContinuousBatchingConfig(
            num_blocks=32, block_size=32, max_batch_tokens=16
        ),
        progress_bar=False,
    ).values()
    assert len(result.generated_tokens) == 4


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_a_training_step_compiles_to_one_graph(tiny_model: MakeModel) -> None:
    model = tiny_model(attention_dropout=0.0, num_hidden_layers=1).train()
    ids = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(0))
    losses = []
    torch.compiler.reset()
    for step in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = step(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        losses.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=1e-2)
