"""The preallocated cache holds what transformers' own holds, and never writes over what it gave."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, StaticCache

from gpt_neox_japanese.model.decode.cache_names import cache_of
from gpt_neox_japanese.model.decode.kv_cache import PreallocatedLayer, preallocate
from tests.model.conftest import MakeConfig, MakeModel

IDS = torch.randint(3, 61, (2, 12), generator=torch.Generator().manual_seed(0))

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.integers(1, 90)),
        st.tuples(st.just("crop"), st.integers(1, 40)),
        st.tuples(st.just("reorder"), st.permutations([0, 1])),
        st.tuples(st.just("copy"), st.none()),
        st.tuples(st.just("reset"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(steps=STEPS, data=st.randoms(use_true_random=False))
def test_any_history_gives_what_a_plain_cache_gives(
    steps: list[tuple[str, Any]], data: Random
) -> None:
    torch.manual_seed(data.randrange(1000))
    plain, preallocated = DynamicCache(), preallocate(DynamicCache())
    given_away = []
    with torch.no_grad():
        for kind, argument in [("update", 3), *steps]:
            if kind == "update":
                states = torch.randn(2, 2, 3, argument, 4).unbind()
                expected, actual = (c.update(*states, 0) for c in (plain, preallocated))
                assert all(map(torch.equal, actual, expected))
                given_away += [(tensor, tensor.clone()) for tensor in actual]
            for cache in (plain, preallocated):
                if kind == "crop":
                    cache.crop(-min(argument, cache.get_seq_length()))
                elif kind == "reorder":
                    cache.reorder_cache(torch.tensor(argument))
                elif kind == "reset":
                    cache.reset()
            if kind == "copy":
                preallocated = copy.deepcopy(preallocated)
            assert preallocated.get_seq_length() == plain.get_seq_length()
    assert type(preallocated.layers[0]) is PreallocatedLayer
    assert all(torch.equal(tensor, before) for tensor, before in given_away)


def test_tokens_are_appended_without_moving_what_is_held(tiny_model: MakeModel) -> None:
    model = tiny_model()
    with torch.no_grad():
        past = model(IDS[:, :6]).past_key_values
        places = set()
        for token in range(6, 12):
            past = model(IDS[:, token : token + 1], past_key_values=past).past_key_values
            places.add(past.layers[0].keys.data_ptr())
    assert len(places) == 1


def test_a_cache_that_autograd_watches_is_not_written_to(tiny_model: MakeModel) -> None:
    model = tiny_model()
    with torch.no_grad():
        past = model(IDS[:, :6]).past_key_values
    first = model(IDS[:, 6:9], past_key_values=past).logits.sum()
    second = model(IDS[:, 9:], past_key_values=past).logits.sum()
    (first + second).backward()
    assert model.gpt_neox_japanese.embed_in.weight.grad.isfinite().all()


def test_a_cache_made_in_inference_mode_can_be_used_outside_of_it(tiny_model: MakeModel) -> None:
    model = tiny_model()
    with torch.inference_mode():
        past = model(IDS[:, :6]).past_key_values
    with torch.no_grad():
        for token in (6, 7):
            logits = model(IDS[:, token : token + 1], past_key_values=past).logits
        torch.testing.assert_close(logits[:, -1], model(IDS[:, :8]).logits[:, -1])


def tensors_in(thing: object) -> list[torch.Tensor]:
    """All that a tool finds which walks through objects, as transformers' exporters do."""
    if isinstance(thing, torch.Tensor):
        return [thing]
    if isinstance(thing, list | tuple):
        return [tensor for each in thing for tensor in tensors_in(each)]
    return (
        [t for each in vars(thing).values() for t in tensors_in(each)]
        if isinstance(thing, DynamicCache | PreallocatedLayer)
        else []
    )


@torch.no_grad()
def test_a_cache_holds_keys_and_values_and_no_other_tensor(tiny_model: MakeModel) -> None:
    model = tiny_model()
    past = cache_of(model(IDS[:, :6]))
    past = cache_of(model(IDS[:, 6:7], past_key_values=past))
    held = [tensor for layer in past.layers for tensor in (layer.keys, layer.values)]
    assert [id(tensor) for tensor in tensors_in(past)] == [id(tensor) for tensor in held]


@torch.no_grad()
@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))]
)
def test_two_copies_of_a_cache_go_on_apart(
    tiny_model: MakeModel, copied: Callable[[Any], Any]
) -> None:
    model = tiny_model()
    past = cache_of(model(IDS[:, :6]))
    other = copied(past)
    other.layers = [copied(layer) for layer in other.layers]
    given = [t.clone() for t in tensors_in(cache_of(model(IDS[:, 6:7], past_key_values=past)))]
    logits = model(IDS[:, 7:8], past_key_values=other).logits[:, -1]
    both = torch.cat([IDS[:, :6], IDS[:, 7:8]], dim=1)
    torch.testing.assert_close(logits, model(both).logits[:, -1])
    assert all(map(torch.equal, tensors_in(past), given))


@pytest.mark.parametrize("kind", ["static", "offloading"])
def test_other_caches_are_left_alone(tiny_config: MakeConfig, kind: str) -> None:
    config = tiny_config()
    cache = (
        StaticCache(config=config, max_cache_len=8)
        if kind == "static"
        else DynamicCache(config=config, offloading=True)
        if torch.cuda.is_available()
        else None
    )
    if cache is None:
        pytest.skip("offloading needs an accelerator")
    before = [type(layer) for layer in cache.layers]
    assert [type(layer) for layer in preallocate(cache).layers] == before
