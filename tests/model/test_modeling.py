"""The model computes what the one in transformers computes."""

from __future__ import annotations

import doctest
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt_neox_japanese.model import modeling
from tests.model.conftest import MakeModel, MakePair

SHAPES = [
    {"num_attention_heads": heads, "num_hidden_layers": layers, "rotary_pct": pct}
    for (heads, layers), pct in itertools.product([(1, 1), (2, 3), (4, 2)], [0.25, 0.5, 1.0])
]
IMPLEMENTATIONS = ["eager", "sdpa"]


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def some_ids(batch: int = 2, tokens: int = 9, seed: int = 0) -> Tensor:
    return torch.randint(3, 61, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def left_padded(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first row of `ids` with three tokens of padding on the left, and the mask."""
    ids, mask = ids.clone(), torch.ones_like(ids)
    ids[0, :3], mask[0, :3] = 0, 0
    return ids, mask


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_and_hidden_states_are_those_of_transformers(
    pair: MakePair, shape: Any, implementation: str
) -> None:
    models = pair(**shape)
    models.ours.set_attn_implementation(implementation)
    ids = some_ids()
    ours = models.ours(ids, output_hidden_states=True)
    theirs = models.theirs(ids, output_hidden_states=True)
    close(ours.logits, theirs.logits)
    assert len(ours.hidden_states) == shape["num_hidden_layers"] + 1
    for mine, reference in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        close(mine, reference)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES[1::3], ids=str)
def test_loss_and_gradients_are_those_of_transformers(
    pair: MakePair, shape: Any, tied: bool
) -> None:
    models = pair(**shape, tie_word_embeddings=tied)
    ids = some_ids()
    labels = ids.clone()
    labels[0, :4] = -100
    losses = [model(ids, labels=labels).loss for model in (models.ours, models.theirs)]
    close(*losses)
    for loss in losses:
        loss.backward()
    reference = dict(models.theirs.named_parameters())
    assert set(reference) == {name for name, _ in models.ours.named_parameters()}
    for name, parameter in models.ours.named_parameters():
        close(parameter.grad, reference[name].grad)


def test_attention_weights_are_those_of_transformers(pair: MakePair) -> None:
    models = pair()
    models.ours.set_attn_implementation("eager")
    ids, mask = left_padded(some_ids())
    ours = models.ours(ids, attention_mask=mask, output_attentions=True).attentions
    theirs = models.theirs(ids, attention_mask=mask, output_attentions=True).attentions
    for mine, reference in zip(ours, theirs, strict=True):
        close(mine, reference)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_left_padding_does_not_change_the_logits_of_the_text(
    pair: MakePair, implementation: str
) -> None:
    models = pair()
    models.ours.set_attn_implementation(implementation)
    ids, mask = left_padded(some_ids())
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    ours = models.ours(ids, attention_mask=mask, position_ids=positions).logits
    theirs = models.theirs(ids, attention_mask=mask, position_ids=positions).logits
    text = mask.bool()
    close(ours[text], theirs[text])
    close(ours[0, 3:], models.ours(ids[:1, 3:]).logits[0])


@pytest.mark.parametrize(
    "positions",
    [
        [0, 1, 2, 3, 14, 15, 16, 17, 18],
        [0, 0, 1, 1, 2, 2, 3, 3, 4],
        [0, 1, 2, 3, 0, 1, 2, 4, 5],
        [5, 6, 7, 3, 4, 5, 6, 7, 8],
    ],
    ids=str,
)
def test_positions_that_are_skipped_or_repeated_begin_no_document(
    pair: MakePair, positions: list[int]
) -> None:
    models = pair(rotary_pct=0.5)
    given = {"input_ids": some_ids(), "position_ids": torch.tensor([positions] * 2)}
    ours = models.ours(**given, use_cache=False).logits
    close(ours, models.theirs(**given, use_cache=True).logits)
    assert (ours - models.ours(given["input_ids"]).logits).abs().max() > 1e-3


def test_a_captured_graph_has_the_same_documents(tiny_model: MakeModel) -> None:
    model = tiny_model(num_hidden_layers=1)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for positions in ([0, 1, 2, 3, 0, 0, 1, 2, 3], [0, 1, 2, 3, 14, 15, 16, 17, 18]):
        given = {"input_ids": some_ids(), "position_ids": torch.tensor([positions])}
        close(compiled(**given).logits, model(**given).logits)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", ["cache", "no cache", "checkpointing"])
def test_documents_in_one_row_do_not_read_each_other(
    tiny_model: MakeModel, implementation: str, case: str
) -> None:
    model = tiny_model(attn_implementation=implementation, attention_dropout=0.0)
    if case == "checkpointing":
        model.train().gradient_checkpointing_enable()
    ids = some_ids()
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]])
    logits = model(ids, position_ids=positions, use_cache=case != "no cache").logits
    close(logits, torch.cat([model(ids[:, :4]).logits, model(ids[:, 4:]).logits], dim=1))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_text_in_pieces_is_the_text_in_one(tiny_model: MakeModel, implementation: str) -> None:
    model = tiny_model()
    model.set_attn_implementation(implementation)
    ids = some_ids(tokens=12)
    whole = model(ids).logits
    past, pieces = None, []
    for piece in ids.split((5, 1, 4, 2), dim=1):
        out = model(piece, past_key_values=past, use_cache=True)
        past = out.past_key_values
        pieces.append(out.logits)
    close(torch.cat(pieces, dim=1), whole)


def test_a_tuple_of_pasts_is_a_past(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids = some_ids(tokens=8)
    whole = model(ids).logits
    cache = model(ids[:, :6]).past_key_values
    legacy = tuple((layer.keys, layer.values) for layer in cache.layers)
    close(model(ids[:, 6:], past_key_values=legacy).logits, whole[:, 6:])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
@pytest.mark.parametrize("shape", SHAPES[::4], ids=str)
def test_generate_continues_like_transformers(
    pair: MakePair, shape: Any, options: dict[str, Any]
) -> None:
    models = pair(**shape)
    ids, mask = left_padded(some_ids())
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, **options}
    ours = models.ours.generate(ids, attention_mask=mask, **settings)
    theirs = models.theirs.generate(ids, attention_mask=mask, **settings)
    assert ours.tolist() == theirs.tolist()


def test_sampling_continues_like_transformers(pair: MakePair) -> None:
    models = pair()
    ids = some_ids()
    texts = []
    for model in (models.ours, models.theirs):
        torch.manual_seed(5)
        texts.append(
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=12, top_k=9
            )
        )
    assert texts[0].tolist() == texts[1].tolist()


def test_only_the_asked_logits_are_computed(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids = some_ids()
    every = model(ids).logits
    close(model(ids, logits_to_keep=2).logits, every[:, -2:])
    close(model(ids, logits_to_keep=torch.tensor([1, 4])).logits, every[:, [1, 4]])


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_gradient_checkpointing_changes_no_gradient(tiny_model: MakeModel) -> None:
    ids = some_ids()
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model(attention_dropout=0.0, use_cache=False).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert all(layer.gradient_checkpointing for layer in model.gpt_neox_japanese.layers)
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    close(gradients[1], gradients[0])


def test_attention_dropout_works_in_training_only(tiny_model: MakeModel) -> None:
    model = tiny_model(attention_dropout=0.5)
    ids = some_ids()
    calm = model(ids).logits
    close(model(ids).logits, calm)
    model.train()
    assert (model(ids).logits - calm).abs().max() > 1e-3


def test_a_step_compiles_to_one_graph(tiny_model: MakeModel) -> None:
    model = tiny_model(attention_dropout=0.0).train()
    ids = some_ids()
    expected = model(ids, labels=ids, use_cache=False).loss
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    loss = compiled(ids, labels=ids, use_cache=False).loss
    loss.backward()
    close(loss, expected)
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own modules
@torch.no_grad()  # on a CPU it has no backward pass
def test_flex_attention_agrees(tiny_model: MakeModel) -> None:
    model = tiny_model(hidden_size=64)
    ids = some_ids()
    expected = model(ids).logits
    model.set_attn_implementation("flex_attention")
    torch.compiler.reset()
    close(model(ids).logits, expected)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("implementation", "package"),
    [("sdpa", "torch"), ("flash_attention_2", "flash_attn"), ("flash_attention_3", "flash_attn_3")],
)
def test_attention_on_a_gpu_agrees(
    tiny_model: MakeModel, implementation: str, package: str
) -> None:
    pytest.importorskip(package)
    model = tiny_model(hidden_size=128, attn_implementation="eager").bfloat16().cuda()
    ids, mask = (tensor.cuda() for tensor in left_padded(some_ids()))
    expected = model(ids, attention_mask=mask).logits[mask.bool()]
    model.set_attn_implementation(implementation)
    actual = model(ids, attention_mask=mask).logits[mask.bool()]
    assert (actual - expected).norm() < 0.02 * expected.norm()


def test_the_trainers_item_count_normalises_the_loss(tiny_model: MakeModel) -> None:
    model = tiny_model()
    ids = some_ids(batch=1, tokens=5)
    mean = model(ids, labels=ids).loss
    close(model(ids, labels=ids, num_items_in_batch=torch.tensor(8)).loss, mean * 4 / 8)


def test_the_example_in_the_docstring_runs() -> None:
    failed, attempted = doctest.testmod(modeling)
    assert not failed
    assert attempted
