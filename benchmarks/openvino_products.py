"""The matrix products of a model in OpenVINO, and nothing else: no attention, no cache, no head.

It has no such model, so this is what it could reach at most. Of LAYERS layers with random weights;
a model's time is that of as many layers as it has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LAYERS", "load"]

LAYERS = 8  # more than the caches hold
_GROUP = 64


def load(path: str, threads: int) -> Callable[[list[int], int, int], tuple[float, float]]:
    """Compile the products of a model directory of ours, in its format; bfloat16 is float16 there.

    Args:
        path: Of the directory, of which config.json is read.
        threads: How many work.

    Returns:
        See `engines.Generate`.
    """
    import openvino

    config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    bits = config.get("quantization_config", {}).get("bits", 16)
    hidden = config["hidden_size"]
    model = _graph(hidden, int(hidden * config["intermediate_multiple_size"]), bits)
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    scale = config["num_hidden_layers"] / LAYERS

    def seconds(rows: int, times: int) -> float:
        x = np.ones((rows, hidden), np.float32)
        start = time.perf_counter()
        for _ in range(times):
            request.infer([x])
        return float((time.perf_counter() - start) * scale)

    def generate(prompt: list[int], count: int, texts: int) -> tuple[float, float]:
        seconds(texts, 1)  # shapes that it has not seen it prepares for
        seconds(len(prompt), 1)
        return seconds(len(prompt) * texts, 1), seconds(texts, count - 1)

    return generate


def _graph(hidden: int, intermediate: int, bits: int) -> Any:
    import openvino
    from openvino import opset13 as ops

    generator = np.random.default_rng(0)

    def product(x: Any, outputs: int, columns: int) -> Any:
        if bits == 16:
            numbers = generator.standard_normal((outputs, columns), np.float32) / 50
            weights = ops.convert(ops.constant(numbers.astype(np.float16)), "f32")
        elif bits == 8:
            integers = generator.integers(-127, 128, (outputs, columns), np.int8)
            scales = np.full((outputs, 1), 1e-3, np.float32)
            weights = ops.multiply(ops.convert(ops.constant(integers), "f32"), ops.constant(scales))
        else:
            shape = (outputs, columns // _GROUP, _GROUP)
            nibbles = generator.integers(0, 256, outputs * columns // 2, np.uint8)
            packed = openvino.Tensor(nibbles, openvino.Shape(shape), openvino.Type.u4)
            centred = ops.subtract(
                ops.convert(ops.constant(packed), "f16"), ops.constant(np.float16(8))
            )
            scales16 = np.full((*shape[:2], 1), 1e-2, np.float16)
            scaled = ops.multiply(centred, ops.constant(scales16))
            flat = ops.reshape(scaled, ops.constant([outputs, columns]), special_zero=False)
            weights = ops.convert(flat, "f32")
        return ops.matmul(x, weights, False, True)

    x = start = ops.parameter([-1, hidden], np.float32)
    third = ops.constant(np.arange(hidden))
    for _ in range(LAYERS):
        mixed = ops.gather(product(x, 3 * hidden, hidden), third, ops.constant(1))
        x = product(mixed, hidden, hidden)
        x = product(product(x, intermediate, hidden), hidden, intermediate)
        x = ops.multiply(x, ops.constant(np.float32(1e-3)))
    return openvino.Model([x], [start], "products")
