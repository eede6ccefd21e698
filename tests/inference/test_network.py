"""Both networks against the model that transformers sees, and what the engine relies on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt_neox_japanese import GPTNeoXJapaneseForCausalLM
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.tensor_files import read_tensors, read_weights
from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import map_weights
from gpt_neox_japanese.inference.network import CHUNK, BatchToken, Network
from gpt_neox_japanese.inference.torch.network import TensorNetwork, check_device
from gpt_neox_japanese.kernels.compile import processor
from gpt_neox_japanese.quantization.bfloat16_arrays import bfloat16_array, float32_array
from gpt_neox_japanese.quantization.convert import convert
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.quantize import quantize
from tests.inference.networks import TINY, network_of, random_model, scores_of, tensors_of

IDS = [5, 3, 1, 4, 9, 2, 6, 7, 11, 30]
LONG = np.random.default_rng(0).integers(0, 50, 3 * CHUNK).tolist()


@pytest.fixture(scope="module", params=["compiled", "tensors"])
def network(request: pytest.FixtureRequest) -> Network:
    return network_of(random_model(), request.param, slots=3)


def same(network: Network, scores: Any, others: Any) -> bool:
    """To the last bit, where the network promises that."""
    exact = isinstance(network, CompiledNetwork)
    return np.array_equal(scores, others) if exact else np.allclose(scores, others, atol=1e-4)


def expected(model: Any, ids: list[int]) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0, -1].float().numpy()


@pytest.mark.parametrize("kind", ["compiled", "tensors"])
@pytest.mark.parametrize(
    ("rotary_pct", "tied", "layers", "act"),
    [
        *itertools.product([1.0, 0.25], [True, False], [1, 3], ["gelu"]),
        (0.5, True, 2, "gelu_new"),
    ],
)
def test_scores_equal_the_model(
    kind: str, rotary_pct: float, tied: bool, layers: int, act: str
) -> None:
    model = random_model(
        rotary_pct=rotary_pct, tie_word_embeddings=tied, num_hidden_layers=layers, hidden_act=act
    )
    scores = scores_of(network_of(model, kind), IDS)
    np.testing.assert_allclose(scores, expected(model, IDS), rtol=1e-5, atol=2e-5)


def test_a_token_does_not_depend_on_how_many_are_read_at_once(network: Network) -> None:
    alone = scores_of(network, IDS, at_once=1)
    for at_once in (2, 3, 8):
        assert same(network, scores_of(network, IDS, at_once=at_once), alone)


def test_a_token_does_not_depend_on_other_slots(network: Network) -> None:
    alone = scores_of(network, IDS)
    scores_of(network, IDS[:-1], slot=1)
    scores_of(network, IDS[3:], slot=2)
    tokens = [BatchToken(8, 2, 7), BatchToken(IDS[-1], 1, len(IDS) - 1), BatchToken(8, 0, len(IDS))]
    assert same(network, network.decode(tokens)[1], alone)


def test_chunks_say_what_single_tokens_say(network: Network) -> None:
    ids = [*LONG[: 2 * CHUNK], 7]
    exact = scores_of(network, ids)
    network.prefill(ids[:-1], 1, 0)
    chunked = network.decode([BatchToken(7, 1, 2 * CHUNK)])[0]
    np.testing.assert_allclose(chunked, exact, rtol=1e-4, atol=1e-4)


def test_chunks_do_not_depend_on_how_many_are_read_at_once(network: Network) -> None:
    network.prefill(LONG, 0, 0)
    at_once = network.decode([BatchToken(7, 0, len(LONG))])[0].copy()
    for begin in range(0, len(LONG), CHUNK):
        network.prefill(LONG[begin : begin + CHUNK], 1, begin)
    assert same(network, network.decode([BatchToken(7, 1, len(LONG))])[0], at_once)


def test_a_copied_slot_continues_like_its_source(network: Network) -> None:
    exact = scores_of(network, IDS)
    network.copy(0, 2, len(IDS) - 1)
    assert same(network, network.decode([BatchToken(IDS[-1], 2, len(IDS) - 1)])[0], exact)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    model = random_model()
    network = network_of(model, threads=threads)
    assert np.array_equal(scores_of(network, IDS), scores_of(network_of(model, threads=1), IDS))


def test_sleeping_threads_wake_up() -> None:
    import time

    network = network_of(random_model(), threads=3)
    first = scores_of(network, IDS)
    for _ in range(5):
        time.sleep(0.05)
        assert np.array_equal(scores_of(network, IDS), first)


def rounded(kind: str) -> Callable[[Any], dict[str, Any]]:
    """What a matrix becomes in another format, as tensors of a checkpoint."""

    def tensors(model: Any) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, array in tensors_of(model).items():
            if array.ndim == 1:
                made[name] = array
            elif kind == "bfloat16":
                made[name] = bfloat16_array(array)
            else:
                is_table = "embed" in name
                matrix = quantize(array, 8 if kind == "int8" or is_table else 4)
                made[name], made[f"{name}_scale"] = matrix
        return made

    return tensors


@pytest.mark.parametrize("kind", ["bfloat16", "int8", "int4"])
def test_stored_numbers_are_computed_with_as_they_are(kind: str) -> None:
    model = random_model(tie_word_embeddings=False)
    hparams = HParams.from_config(model.config.to_dict())
    weights = map_weights(hparams, rounded(kind)(model), bfloat16=False)
    network = CompiledNetwork(hparams, weights, threads=2)
    # The same numbers in float32.
    floats = {
        name: array if array.ndim == 1 else Matrix(array, tensors.get(f"{name}_scale")).floats()
        for tensors in [rounded(kind)(model)]
        for name, array in tensors.items()
        if not name.endswith("_scale")
    }
    exact = CompiledNetwork(hparams, map_weights(hparams, floats, bfloat16=False))
    scores = scores_of(network, IDS)
    difference = np.abs(scores - scores_of(exact, IDS)).max()
    # Activations have 12 bits beside integer weights.
    assert difference < (1e-4 if kind == "bfloat16" else 0.02) * np.abs(scores).max()
    # And whole chunks are computed with them too.
    network.prefill(LONG[:CHUNK], 0, 0)
    exact.prefill(LONG[:CHUNK], 0, 0)
    ours, theirs = (n.decode([BatchToken(7, 0, CHUNK)])[0] for n in (network, exact))
    assert (
        np.abs(ours - theirs).max() < (1e-4 if kind == "bfloat16" else 0.02) * np.abs(theirs).max()
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_int8_is_computed_on_tensors_as_what_it_stands_for(dtype: str) -> None:
    """Sums of whole numbers would not fit into float16, nor the scales of a small head."""
    model: Any = random_model(hidden_size=512, initializer_range=0.02, tie_word_embeddings=False)
    with torch.no_grad():
        for layer in model.gpt_neox_japanese.layers:
            layer.post_attention_layernorm.weight *= 40
        model.embed_out.weight *= 1e-4
    hparams = HParams.from_config(model.config.to_dict())
    weights = map_weights(hparams, rounded("int8")(model), bfloat16=False)
    exact = scores_of(CompiledNetwork(hparams, weights), IDS)
    scores = scores_of(TensorNetwork(hparams, weights, dtype=dtype), IDS)
    assert np.abs(scores - exact).max() < 0.02 * np.abs(exact).max()


def test_a_conversion_with_odd_widths_is_computed_with(tmp_path: Path) -> None:
    """Of 80 channels int4 has no whole groups, of the MLP's 320 it has: the file holds both."""
    model = random_model(hidden_size=80, tie_word_embeddings=False)
    model.save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "small", 4, read=read_tensors)
    arrays = read_weights(tmp_path / "small")
    assert {a.dtype.name for n, a in arrays.items() if n.endswith("4h.weight")} == {"int8"}
    assert {a.dtype.name for n, a in arrays.items() if n.endswith("_to_h.weight")} == {"uint8"}
    hparams = HParams.from_config(model.config.to_dict())
    scores = scores_of(CompiledNetwork(hparams, map_weights(hparams, arrays, bfloat16=False)), IDS)
    loaded = GPTNeoXJapaneseForCausalLM.from_pretrained(tmp_path / "small").eval()
    exact = expected(loaded, IDS)
    assert np.abs(scores - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
def test_a_full_step_computes_what_single_tokens_compute(kind: str) -> None:
    model = random_model(vocab_size=77)
    hparams = HParams.from_config(model.config.to_dict())
    tensors = tensors_of(model) if kind == "float32" else rounded(kind)(model)
    weights = map_weights(hparams, tensors, bfloat16=False)
    network = CompiledNetwork(hparams, weights, threads=2, slots=40)
    ids = LONG[:21]
    alone = [scores_of(network, ids[: end + 1], slot=39, at_once=1) for end in range(len(ids))]
    # The beginning of a prompt beside texts that are one, two, three … tokens long.
    texts = network.max_rows - len(ids)
    for slot in range(texts):
        for position in range(slot):
            network.decode([BatchToken(ids[position], slot, position)], 1)
    prompt = [BatchToken(ids[position], 38, position) for position in range(len(ids))]
    tokens = [*prompt, *(BatchToken(ids[slot], slot, slot) for slot in range(texts))]
    assert len(tokens) == network.max_rows
    scores = network.decode(tokens, 3)
    assert np.array_equal(scores, [*alone[3:], *alone[:texts]])


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
def test_chunks_are_single_tokens_to_the_bit(kind: str) -> None:
    model = random_model()
    hparams = HParams.from_config(model.config.to_dict())
    tensors = tensors_of(model) if kind == "float32" else rounded(kind)(model)
    weights = map_weights(hparams, tensors, bfloat16=False)
    network = CompiledNetwork(hparams, weights, threads=2, slots=2)
    expected = scores_of(network, [*LONG[: 2 * CHUNK], 7])
    network.prefill(LONG[: 2 * CHUNK], 1, 0)
    assert np.array_equal(network.decode([BatchToken(7, 1, 2 * CHUNK)])[0], expected)


def test_a_half_cache_stays_near() -> None:
    model = random_model()
    hparams = HParams.from_config(model.config.to_dict())
    weights = map_weights(hparams, tensors_of(model), bfloat16=False)
    half = scores_of(CompiledNetwork(hparams, weights, bfloat16_cache=True), IDS)
    exact = scores_of(CompiledNetwork(hparams, weights), IDS)
    assert 0 < np.abs(half - exact).max() < 0.02 * np.abs(exact).max()


def test_capacity_costs_nothing_until_it_is_used() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = network_of(random_model(max_position_embeddings=100_000), slots=64)
    scores_of(network, IDS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # of 6.5 GB


@pytest.mark.parametrize("kind", ["compiled", "tensors"])
@pytest.mark.parametrize("value", [math.nan, 1e30])
def test_broken_attention_is_seen_in_the_scores(kind: str, value: float) -> None:
    model: Any = random_model()
    with torch.no_grad():  # the queries and keys of the first head
        model.gpt_neox_japanese.layers[0].attention.query_key_value.weight[:32] = value
    network = network_of(model, kind)
    assert np.isnan(scores_of(network, IDS)).all()
    network.prefill(LONG, 0, 0)
    assert np.isnan(network.decode([BatchToken(7, 0, len(LONG))])[0]).all()


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    numbers = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    numbers[:6] = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38]
    expected_bits = torch.from_numpy(numbers).bfloat16()
    bits = bfloat16_array(numbers)
    assert np.array_equal(float32_array(bits), expected_bits.float().numpy(), equal_nan=True)


def test_a_device_without_room_is_told_with_what_it_has_no_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = random_model()
    with pytest.raises(CheckpointError, match=r"no room for the KV cache of .*choose fewer slots"):
        network_of(model, "tensors", slots=10**12)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.Tensor, "to", full)
    with pytest.raises(CheckpointError, match=r"cpu has no room for the weights; .*CUDA out of"):
        network_of(model, "tensors")


def test_tiny_is_what_the_model_is() -> None:
    assert HParams.from_config(random_model().config.to_dict()).hidden_size == TINY["hidden_size"]


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_says_what_the_processor_says(device: str) -> None:
    if torch.cuda.device_count() <= (torch.device(device).index or 0):
        pytest.skip("there is no second GPU")
    model = random_model()
    exact = scores_of(network_of(model), IDS)
    network = network_of(model, "tensors", device=device, slots=2)
    for slot in (0, 1):
        np.testing.assert_allclose(scores_of(network, IDS, slot), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            NotImplementedError("Could not run 'aten::empty' with arguments. " + "It " * 200),
            "none;",
        ),
        (AssertionError("Torch not compiled with CUDA enabled"), "CUDA enabled;"),
        (RuntimeError("CUDA error: invalid device ordinal\n" + "CUDA kernel " * 40), "ordinal;"),
        (RuntimeError("Found no NVIDIA driver. Please " + "install " * 50), "NVIDIA driver;"),
    ],
)
def test_device_that_is_refused_is_not_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def empty(*_sizes: int, device: str) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(CheckpointError, match=f"'cuda' cannot be used here: .*{said} choose cpu$"):
        check_device("cuda")


def test_description_names_processor_and_weights() -> None:
    network = network_of(random_model(), "compiled", slots=3, threads=2)
    assert network.description == (
        f"compiled for {processor()}, float32 weights, 2 threads, 3 slots"
    )
