"""Who follows, changes or counts what a model computes finds what he looks for, all of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gpt_neox_japanese.model.decode.cache_names import CACHE_NAMES, cache_of
from gpt_neox_japanese.model.decode.linear import linear
from tests.model.conftest import MakeModel

IDS = torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(0))
# Wide enough for the kernels of a decode step.
WIDE: dict[str, Any] = {"hidden_size": 512, "vocab_size": 2048, "num_hidden_layers": 1}


@pytest.fixture(params=[True, False], ids=["AVX2", "AVX-512"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine is, treat it as one without units for half precision, or with."""
    monkeypatch.setattr("gpt_neox_japanese.model.decode.linear._WITHOUT_AVX512", request.param)


def compiled(model: nn.Module) -> Callable[..., Any]:
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, backend="aot_eager")


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("given", [{}, {"attention_mask": torch.ones_like(IDS)}, {"labels": IDS}])
def test_a_model_compiles_to_one_graph(
    tiny_model: MakeModel, grad: bool, given: dict[str, Any]
) -> None:
    model = tiny_model()
    with torch.set_grad_enabled(grad):
        logits = compiled(model)(input_ids=IDS, **given).logits
        torch.testing.assert_close(logits, model(input_ids=IDS, **given).logits)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", CACHE_NAMES)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the cache, read by the compiler
def test_a_step_on_an_eager_cache_compiles_to_one_graph(
    tiny_model: MakeModel, grad: bool, name: str
) -> None:
    model = tiny_model()
    step = compiled(model)
    with torch.set_grad_enabled(grad):
        past = cache_of(model(IDS[:, :6]))
        for run, token in ((step, 6), (step, 7), (model, 8), (step, 9)):
            output = run(input_ids=IDS[:, token : token + 1], **{name: past})
            past = cache_of(output)
            expected = model(IDS[:, : token + 1]).logits[:, -1]
            torch.testing.assert_close(output.logits[:, -1], expected)


@pytest.mark.usefixtures("processor")
@pytest.mark.filterwarnings("ignore")  # torch's own, of tracing as such
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("tokens", [1, 12])
def test_a_model_can_be_traced_and_saved(
    tiny_model: MakeModel, dtype: torch.dtype, grad: bool, tokens: int
) -> None:
    model = tiny_model(use_cache=False, return_dict=False, **WIDE).to(dtype)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(model, (IDS[:, :tokens],))
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        other = IDS.flip(1)[:, :tokens].contiguous()
        actual, expected = torch.jit.load(file)(other)[0], model(other)[0]
    assert (actual - expected).norm() < 0.02 * expected.norm()


@pytest.mark.usefixtures("processor")
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own attention
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_function_transforms_see_through_a_model(tiny_model: MakeModel, dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    states = torch.randn(3, 2, 5, 32, dtype=dtype)

    def total(some: torch.Tensor) -> torch.Tensor:
        return model(inputs_embeds=some).logits.float().sum()

    with torch.no_grad():
        together = torch.func.vmap(lambda some: model(inputs_embeds=some).logits)(states)
        alone = torch.stack([model(inputs_embeds=some).logits for some in states])
    torch.testing.assert_close(together, alone, rtol=0.1, atol=0.2 if dtype.itemsize == 2 else 1e-4)
    gradient = torch.func.grad(total)(states[0])
    assert gradient.shape == states[0].shape
    assert gradient.isfinite().all()


@torch.no_grad()
def test_operations_are_counted_whoever_computes_them(tiny_model: MakeModel) -> None:
    counts = []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(**WIDE).to(dtype)
        with FlopCounterMode(display=False) as counter:
            model(IDS[:1, :1])
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] >= 2 * (12 * 512**2 + 2048 * 512)


def test_every_linear_layer_is_of_the_plain_type(tiny_model: MakeModel) -> None:
    layers = [m for m in tiny_model().modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 2 * 4 + 1
    assert {type(layer) for layer in layers} == {nn.Linear}


@pytest.mark.filterwarnings("ignore")  # torch's own: deprecated
def test_dynamic_quantisation_finds_every_linear_layer(tiny_model: MakeModel) -> None:
    model = tiny_model()
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    found = [m for m in quantised.modules() if type(m).__module__.startswith("torch.ao.")]
    assert sum(hasattr(module, "scale") for module in found) == 2 * 4 + 1
    expected = model(IDS).logits
    assert 0 < (quantised(IDS).logits - expected).norm() < 0.2 * expected.norm()
    options = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 3, "eos_token_id": None}
    assert quantised.generate(IDS, **options).shape == (2, 15)


@pytest.mark.usefixtures("processor")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of the states, read by the compiler
@pytest.mark.parametrize("how", ["hook", "pre-hook", "own forward", "compiled"])
def test_what_is_put_around_a_layer_is_called(tiny_model: MakeModel, how: str) -> None:
    model, expected = tiny_model(), tiny_model()
    layer, called = model.embed_out, []
    if how == "hook":
        layer.register_forward_hook(lambda *given: called.append(1))
    elif how == "pre-hook":
        layer.register_forward_pre_hook(lambda *given: called.append(1))
    elif how == "own forward":
        inner = layer.forward
        layer.forward = lambda states: called.append(1) or inner(states)
    else:
        layer.compile(backend=lambda graph, _: called.append(1) or graph)
    torch.testing.assert_close(model(IDS).logits, expected(IDS).logits)
    assert called
    called.clear()
    model(IDS, labels=IDS, skip_logits=True).loss.backward()
    assert called or how == "compiled"


@torch.no_grad()
def test_a_layer_with_a_bias_keeps_it() -> None:
    layer, states = nn.Linear(8, 6), torch.randn(9, 8)
    assert torch.equal(linear(layer, states), layer(states))
