"""What the kernels and an int8 model compute, as digests: run as a program it prints them as JSON.

The inputs are whole numbers over a power of two, so that they are the same everywhere; they have 24
bits, so that products must be rounded. Nothing is imported but the package and NumPy: the program
also runs where pytest and torch do not.
"""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.tensor_files import read_weights
from gpt_neox_japanese.inference.cpu.kernel_prefill import attend_heads, gelu_rows, normalize_rows
from gpt_neox_japanese.inference.cpu.network import CompiledNetwork
from gpt_neox_japanese.inference.cpu.workspace import RotationTables
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import map_weights
from gpt_neox_japanese.inference.network import CHUNK, BatchToken
from gpt_neox_japanese.kernels.products import gemv
from gpt_neox_japanese.quantization.bfloat16_arrays import float32_to_bfloat16
from gpt_neox_japanese.quantization.quantize import quantize

Arrays = dict[str, NDArray[np.generic]]


def integers(count: int, seed: int = 0) -> NDArray[np.int64]:
    """0 or more, the same with every version of NumPy."""
    return np.asarray(np.random.PCG64(seed).random_raw(count) >> np.uint64(32), np.int64)


def numbers(*size: int, seed: int = 0) -> NDArray[np.float32]:
    """From -4 to 4."""
    whole = integers(math.prod(size), seed) % 2**24 - 2**23
    return np.float32(whole).reshape(size) / np.float32(2**21)


def rows() -> Arrays:
    normed = np.empty((3, 111), np.float32)
    normalize_rows(numbers(3, 111), numbers(2, 111, seed=1), np.float32(1e-5), normed)
    exact, tanh = numbers(3, 1000), numbers(3, 1000)
    gelu_rows(exact, False)
    gelu_rows(tanh, True)
    return {"normalize": normed, "gelu": exact, "gelu, tanh": tanh}


def attention(name: str) -> Arrays:
    heads, head_dim, position, tokens = 2, 20, 150, 5
    packed = numbers(tokens, heads * 3 * head_dim)
    keys, values = (numbers(heads, 200, head_dim, seed=seed) for seed in (1, 2))
    if name == "bfloat16":
        keys, values = float32_to_bfloat16(keys), float32_to_bfloat16(values)
    cos, sin = numbers(200, 5, seed=3), numbers(200, 5, seed=4)
    mixed = np.empty((tokens, heads * head_dim), np.float32)
    attend_heads(packed, cos, sin, keys, values, position, mixed, 0, heads)
    return {f"rotate, {name}": packed, f"attend, {name}": mixed}


def products() -> Arrays:
    x, weights = numbers(7, 2560), numbers(37, 2560, seed=1)
    result: Arrays = {}
    floats, bfloats, int8, int4 = (np.empty((7, 37), np.float32) for _ in range(4))
    gemv.gemv_float32(weights, x, floats, 0, 37)
    gemv.gemv_bfloat16(float32_to_bfloat16(weights), x, bfloats, 0, 37)
    q, scales = np.empty(x.shape, np.int16), np.empty(7, np.float32)
    corrections = np.empty((7, 40), np.int32)
    gemv.quantize_rows(x, q, scales, corrections)
    for bits in (8, 4):
        matrix = quantize(weights, bits)
        assert matrix.scales is not None
        result |= {f"int{bits}": matrix.numbers, f"int{bits} scales": matrix.scales}
        if bits == 8:
            gemv.gemv_int8(matrix.numbers, matrix.scales, q, scales, int8, 0, 37)
        else:
            gemv.gemv_int4(matrix.numbers, matrix.scales, q, scales, corrections, int4, 0, 37)
    names = ("float32", "bfloat16", "int8", "int4")
    return result | {
        f"product, {name}": product
        for name, product in zip(names, (floats, bfloats, int8, int4), strict=True)
    }


def rotation() -> Arrays:
    tables = RotationTables(HParams.from_config({"partial_rotary_factor": 1.0}), 2048)
    tables.extend(2048)
    cos, sin = tables.cos, tables.sin
    return {"cos": cos, "sin": sin}


def int8_model() -> Arrays:
    """Of the model in the package: a chunk of a prompt read, and eight tokens scored."""
    directory = default_model_directory()
    hparams = HParams.from_config(read_object(directory / "config.json"))
    weights = map_weights(hparams, read_weights(directory), bfloat16=False)
    layers = tuple(
        layer._replace(
            query_key_value=quantize(layer.query_key_value.floats(), 8),
            dense=quantize(layer.dense.floats(), 8),
            up_proj=quantize(layer.up_proj.floats(), 8),
            down_proj=quantize(layer.down_proj.floats(), 8),
        )
        for layer in weights.layers
    )
    table = quantize(weights.embedding.floats(), 8)
    network = CompiledNetwork(
        hparams, weights._replace(embedding=table, head=table, layers=layers), threads=1
    )
    ids = (100 + integers(CHUNK + 8) % 2000).tolist()
    network.prefill(ids[:CHUNK], 0, 0)
    tokens = [BatchToken(token, 0, CHUNK + index) for index, token in enumerate(ids[CHUNK:])]
    return {"scores, int8": network.decode(tokens).copy()}


def digests() -> dict[str, str]:
    arrays = (
        rows()
        | attention("float32")
        | attention("bfloat16")
        | products()
        | rotation()
        | int8_model()
    )
    return {
        name: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
        for name, array in arrays.items()
    }


if __name__ == "__main__":
    print(json.dumps(digests(), indent=4))
