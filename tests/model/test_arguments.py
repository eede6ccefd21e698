from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gpt_neox_japanese.model.decode.cache_names import CACHE_NAMES, cache_of
from tests.model.conftest import MakeModel

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.mark.parametrize("part", ["whole", "base"])
def test_an_unknown_keyword_raises(tiny_model: MakeModel, part: str) -> None:
    model = tiny_model()
    model = model if part == "whole" else model.gpt_neox_japanese
    with pytest.raises(TypeError, match="attention_maks"):
        model(IDS, attention_maks=torch.ones_like(IDS))


def test_a_keyword_of_the_attention_implementation_reaches_it(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def engine(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attention_instances: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        seen.append(attention_instances)
        return torch.zeros_like(query).transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "engine", engine)
    model = tiny_model()
    model.config._attn_implementation_internal = "engine"
    model(inputs_embeds=torch.zeros(1, 3, 32), attention_mask={}, attention_instances="these")
    assert seen == ["these", "these"]


def test_none_says_nothing_under_any_name(tiny_model: MakeModel) -> None:
    assert tiny_model()(IDS, task_ids=None).logits.shape == (2, 4, 61)


@pytest.mark.parametrize("chosen", [[0, -1], (1,), -1, 0, [7], []])
def test_hidden_states_are_chosen_by_index(tiny_model: MakeModel, chosen: Any) -> None:
    model = tiny_model()
    every = model(IDS, output_hidden_states=True).hidden_states
    output = model(IDS, output_hidden_states=chosen)
    indices = [chosen] if isinstance(chosen, int) else list(chosen)
    if not indices:
        assert output.hidden_states is None
        return
    wanted = {index % 3 for index in indices if index < 3}
    for index, (state, expected) in enumerate(zip(output.hidden_states, every, strict=True)):
        assert torch.equal(state, expected) if index in wanted else state is None
    states = model(IDS, output_hidden_states=chosen, return_dict=False)[2]
    assert [state is None for state in states] == [s is None for s in output.hidden_states]


@pytest.mark.parametrize("chosen", ["all", 1.5, [0.5], [True]])
def test_a_choice_that_is_none_is_refused(tiny_model: MakeModel, chosen: Any) -> None:
    with pytest.raises(ValueError, match=r"give True, False, or indices such as \[0, -1\]"):
        tiny_model()(IDS, output_hidden_states=chosen)


@torch.no_grad()
@pytest.mark.parametrize("names", [CACHE_NAMES, CACHE_NAMES[::-1]])
def test_an_empty_cache_continues_one_under_the_other_name(
    tiny_model: MakeModel, names: Any
) -> None:
    model = tiny_model()
    prefix, empty = cache_of(model(IDS)), DynamicCache()
    output = model(IDS[:, :2], **dict(zip(names, (empty, prefix), strict=True)))
    assert cache_of(output) is empty
    assert (empty.get_seq_length(), prefix.get_seq_length()) == (6, 4)
    expected = model(torch.cat([IDS, IDS[:, :2]], dim=1)).logits[:, 4:]
    torch.testing.assert_close(output.logits, expected)
    again = model(IDS[:, 2:3], **dict.fromkeys(names, empty))
    assert cache_of(again).get_seq_length() == 7


def test_segment_ids_are_ignored_with_a_warning(tiny_model: MakeModel) -> None:
    model = tiny_model()
    with pytest.warns(UserWarning, match="token_type_ids is ignored"):
        out = model(IDS, token_type_ids=torch.ones_like(IDS))
    assert torch.equal(out.logits, model(IDS).logits)


@pytest.mark.parametrize("part", ["whole", "base"])
def test_return_dict_false_gives_the_same_values_as_a_tuple(
    tiny_model: MakeModel, part: str
) -> None:
    model = tiny_model(attn_implementation="eager")
    model = model if part == "whole" else model.gpt_neox_japanese
    flags = {"output_hidden_states": True, "output_attentions": True}
    named = model(IDS, **flags)
    plain = model(IDS, return_dict=False, **flags)
    assert type(plain) is tuple
    assert isinstance(plain[1], Cache)
    assert torch.equal(plain[0], named[0])
    assert [len(part) for part in plain[2:]] == [3, 2]
    assert torch.equal(plain[2][1], named.hidden_states[1])
    assert torch.equal(plain[3][1], named.attentions[1])


def test_a_tuple_begins_with_the_loss_if_there_are_labels(tiny_model: MakeModel) -> None:
    model = tiny_model()
    loss, logits, _ = model(IDS, labels=IDS, return_dict=False)
    assert loss.shape == ()
    assert logits.shape == (2, 4, 61)
    assert len(model(IDS, return_dict=False, use_cache=False)) == 1


@pytest.mark.parametrize("part", ["whole", "base"])
def test_the_config_answers_for_what_is_not_given(tiny_model: MakeModel, part: str) -> None:
    model = tiny_model(output_hidden_states=True, return_dict=False, use_cache=False)
    model = model if part == "whole" else model.gpt_neox_japanese
    _, hidden_states = model(IDS, output_hidden_states=None, return_dict=None)
    assert len(hidden_states) == 3
    assert model(IDS, return_dict=True).past_key_values is None
    assert model(IDS, return_dict=True, output_hidden_states=False).hidden_states is None


def test_arguments_may_be_positional(tiny_model: MakeModel) -> None:
    model = tiny_model(attn_implementation="eager").gpt_neox_japanese
    positions = torch.arange(4)[None]
    out = model(IDS, torch.ones_like(IDS), positions, None, None, False, True, True, True)
    assert out.past_key_values is None
    assert len(out.attentions) == 2
    assert len(out.hidden_states) == 3


def test_attentions_are_computed_by_eager_and_it_says_so(tiny_model: MakeModel) -> None:
    model = tiny_model()
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    with pytest.warns(UserWarning, match="'sdpa' attention has no weights to return"):
        out = model(IDS, attention_mask=mask, output_attentions=True)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    expected = model(IDS, attention_mask=mask, output_attentions=True)
    assert torch.equal(out.logits, expected.logits)
    for weights, reference in zip(out.attentions, expected.attentions, strict=True):
        assert torch.equal(weights, reference)


@pytest.mark.parametrize("given", [{}, {"input_ids": IDS, "inputs_embeds": torch.zeros(2, 4, 32)}])
def test_one_kind_of_input_is_needed(tiny_model: MakeModel, given: Any) -> None:
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        tiny_model()(**given)


def test_embeddings_may_be_given_instead_of_ids(tiny_model: MakeModel) -> None:
    model = tiny_model()
    embedded = model.get_input_embeddings()(IDS)
    assert torch.equal(model(inputs_embeds=embedded).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"input_ids": IDS[0]}, r"input_ids has shape \(4,\); it must be \[batch, tokens\]"),
        ({"input_ids": IDS[:, :0]}, r"shape \(2, 0\); .* at least one token"),
        ({"inputs_embeds": torch.zeros(4, 32)}, r"inputs_embeds has shape \(4, 32\); it must be"),
        ({"position_ids": torch.arange(4)}, r"shape \(4,\); it must be \(2, 4\) or \(1, 4\)"),
        ({"position_ids": torch.zeros(2, 1).long()}, r"position_ids has shape \(2, 1\)"),
        ({"position_ids": torch.zeros(2, 4)}, r"of torch.float32; positions are integers"),
        ({"attention_mask": torch.ones(2, 3)}, r"shape \(2, 3\); it must be \(2, 4\)"),
        ({"attention_mask": torch.ones(1, 4)}, r"shape \(1, 4\); it must be \(2, 4\)"),
        ({"attention_mask": torch.ones(3, 4)}, r"shape \(3, 4\); it must be \(2, 4\)"),
        (
            {"attention_mask": torch.ones(2, 4, 4)},
            r"shape \(2, 4, 4\); .* \[batch, 1, tokens, keys",
        ),
    ],
    ids=str,
)
def test_a_wrong_shape_is_refused(tiny_model: MakeModel, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_model()(**({} if "inputs_embeds" in given else {"input_ids": IDS}) | given)


def test_a_past_of_another_depth_is_refused(tiny_model: MakeModel) -> None:
    pair = (torch.zeros(1, 4, 2, 8),) * 2
    with pytest.raises(ValueError, match="pair for each of the 2 layers"):
        tiny_model()(IDS[:1], past_key_values=(pair,))


@pytest.mark.parametrize("whole", [True, False])
def test_the_cache_goes_by_either_name(tiny_model: MakeModel, whole: bool) -> None:
    model = tiny_model()
    model = model if whole else model.gpt_neox_japanese
    cached = [cache_of(model(IDS)) for _ in range(2)]
    old = model(IDS[:, :2], past_key_values=cached[0])
    new = model(IDS[:, :2], cache=cached[1])
    assert torch.equal(old[0], new[0])
    assert cache_of(new).get_seq_length() == cache_of(old).get_seq_length() == 6
    with pytest.raises(ValueError, match="give one of them"):
        model(IDS, cache=cached[0], past_key_values=cached[1])


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_layers_that_run_twice_extend_no_cache(tiny_model: MakeModel) -> None:
    model = tiny_model().train()
    with torch.no_grad():
        past = cache_of(model(IDS))
    model.gradient_checkpointing_enable()
    with pytest.raises(ValueError, match="extend the cache twice"):
        model(IDS, cache=past)


def test_a_head_mask_of_another_shape_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ValueError, match=r"head_mask has shape \(3,\); it must be \(4,\)"):
        tiny_model()(IDS, head_mask=torch.ones(3))


def test_going_past_the_longest_sequence_is_warned_of(tiny_model: MakeModel) -> None:
    model = tiny_model(max_position_embeddings=6)
    past = model(IDS).past_key_values
    model(IDS[:, :2], past_key_values=past)
    with pytest.warns(UserWarning, match="longer than max_position_embeddings=6"):
        model(IDS[:, :1], past_key_values=past)
