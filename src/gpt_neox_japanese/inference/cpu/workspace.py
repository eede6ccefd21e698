"""Makes the workspace of a compiled step: addresses of weights, and room for what is computed."""

from __future__ import annotations

import math
from decimal import Context, Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.inference.cpu import kernel_decode
from gpt_neox_japanese.inference.cpu.kernel_decode import Workspace
from gpt_neox_japanese.inference.cpu.kernel_dispatch import PreparedActivations
from gpt_neox_japanese.inference.cpu.kernel_phases import MAX_ROWS_OF_PHASE
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import Layer, Weights
from gpt_neox_japanese.kernels.aligned import aligned
from gpt_neox_japanese.kernels.compile import Floats
from gpt_neox_japanese.kernels.constants import GROUP, MAX_FEW_ROWS
from gpt_neox_japanese.quantization.formats import Matrix

__all__ = ["RotationTables", "make_workspace"]

_STEP = 1024  # positions whose rows are computed at once


def make_workspace(
    hparams: HParams,
    weights: Weights,
    keys: NDArray[np.generic],
    values: NDArray[np.generic],
    tables: RotationTables,
    threads: int,
) -> Workspace:
    """Make the workspace of a network.

    Args:
        hparams: Sizes and constants.
        weights: They must stay where they are as long as the workspace is used.
        keys: The cache, [layers, slots, heads, capacity, head_dim], float32 or bfloat16.
        values: As `keys`.
        tables: Of as many positions as the cache has.
        threads: How many work together.

    Returns:
        Buffers, addresses of the weights, and what is constant in every step.

    Raises:
        CheckpointError: A matrix has more rows than a phase can have.
    """
    hidden, intermediate, rows = hparams.hidden_size, hparams.intermediate_size, MAX_FEW_ROWS
    widest = max(3 * hidden, intermediate, hparams.vocab_size)
    columns = max(hidden, intermediate)
    if widest >= MAX_ROWS_OF_PHASE:
        raise CheckpointError(
            f"a matrix of the model has {widest} rows; at most {MAX_ROWS_OF_PHASE - 1} can be used"
        )
    capacity = keys.shape[3]
    return Workspace(
        matrix=np.empty(0, weights.layers[0].dense.numbers.dtype),
        table=np.empty(0, weights.head.numbers.dtype),
        layers=np.array([_addresses(layer) for layer in weights.layers]),
        embed_and_head=np.array([_address(weights.embedding), _address(weights.head)]),
        final_norm=weights.final_norm,
        cos=tables.cos,
        sin=tables.sin,
        epsilon=np.float32(hparams.layer_norm_eps),
        tanh=hparams.gelu_approximation == "tanh",
        keys=keys,
        values=values,
        counters=np.zeros(kernel_decode.counter_words(len(weights.layers)), np.int64),
        batch=np.zeros(2, np.int64),
        tokens=np.zeros((3, rows), np.int64),
        hidden=_room(rows, hidden),
        qkv=_room(rows, 3 * hidden),
        attn_out=_room(rows, hidden),
        mlp_hidden=_room(rows, intermediate),
        delta=_room(rows, hidden),
        logits=_room(rows, hparams.vocab_size),
        normed=_room(threads, rows, hidden),
        scores=_room(threads, capacity),
        prepared=PreparedActivations(
            numbers=aligned((threads, rows * columns), np.int16),
            scales=_room(threads, rows),
            corrections=np.empty((threads, rows * -(-columns // GROUP)), np.int32),
        ),
    )


class RotationTables:
    """Cosines and sines of positions, computed as far as texts have come.

    Frequencies and angles are rounded to float32, as transformers does. NumPy's own functions give
    other bits on other processors, so nothing is used here but what all of them round alike.

    Args:
        hparams: Sizes and constants.
        positions: How many there are; those that no text reaches take neither time nor memory.

    Attributes:
        cos: float32 [positions, rotary_dim / 2]; set as far as `extend` was asked.
        sin: As `cos`.
    """

    def __init__(self, hparams: HParams, positions: int) -> None:
        exponents = np.arange(0, hparams.rotary_dim, 2, dtype=np.float32) / np.float32(
            hparams.rotary_dim
        )
        powers = [float(_pow(hparams.rope_theta, float(exponent))) for exponent in exponents]
        self._frequencies = np.float32(1) / np.array(powers, np.float32)
        self._end = 0
        self.cos, self.sin = np.zeros((2, positions, len(powers)), np.float32)

    def extend(self, end: int) -> slice:
        """Compute the rows of all positions below `end` that are not there yet.

        Args:
            end: At most the number of positions.

        Returns:
            The rows that are new.
        """
        new = slice(self._end, min(-(-end // _STEP) * _STEP, len(self.cos)))
        if end <= self._end:
            return slice(0, 0)
        positions = np.arange(new.start, new.stop, dtype=np.float32)
        self.cos[new], self.sin[new] = _cos_and_sin(positions[:, None] * self._frequencies)
        self._end = new.stop
        return new


def _pow(base: float, exponent: float) -> Decimal:
    """A power to 28 digits: the same on every system, which C's `pow` is not."""
    with localcontext(Context(prec=28)):
        return Decimal(base) ** Decimal(exponent)


# pi / 2 in two parts; the first has 33 bits, so that its product with a number of quarter turns
# is exact.
_QUARTER = float.fromhex("0x1.921fb544p+0")
_QUARTER_REST = float.fromhex("0x1.0b4611a626331p-34")

# Taylor's polynomials, the highest power first, exact to 1e-18 up to an eighth of a turn.
_SIN = [(-1) ** n / math.factorial(2 * n + 1) for n in range(9, -1, -1)]
_COS = [(-1) ** n / math.factorial(2 * n) for n in range(9, -1, -1)]


def _cos_and_sin(angles: Floats) -> tuple[Floats, Floats]:
    """Cosines and sines by sums and products of float64, rounded once to float32."""
    exact = angles.astype(np.float64)
    turns = np.rint(exact / _QUARTER)
    rest = (exact - turns * _QUARTER) - turns * _QUARTER_REST
    square = rest * rest
    cos, sin = np.polyval(_COS, square), rest * np.polyval(_SIN, square)
    turn = turns.astype(np.int64) % 4
    return (
        np.choose(turn, [cos, -sin, -cos, sin]).astype(np.float32),
        np.choose(turn, [sin, cos, -sin, -cos]).astype(np.float32),
    )


def _room(*size: int) -> NDArray[np.float32]:
    return aligned(size, np.float32)


def _address(matrix: Matrix) -> list[int]:
    scales = 0 if matrix.scales is None else matrix.scales.ctypes.data
    return [matrix.numbers.ctypes.data, scales]


def _addresses(layer: Layer) -> list[int]:
    """A row of `Workspace.layers`."""
    bias = 0 if layer.dense_bias is None else layer.dense_bias.ctypes.data
    return [
        layer.input_norm.ctypes.data,
        *_address(layer.query_key_value),
        *_address(layer.dense),
        bias,
        layer.post_attention_norm.ctypes.data,
        *_address(layer.up_proj),
        *_address(layer.down_proj),
    ]
