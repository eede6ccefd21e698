"""Quantizes a checkpoint to int4 one layer after the other, by what its matrices do with a text.

The text runs through the layers that are quantised already, and so each layer's matrices are
rounded for the activations that they will meet. No more than one layer is in memory in float32.

The last windows of the text are kept aside: no matrix is rounded by them, and with them the
quantised model is compared with the original in the end.
"""
# torch's methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.layer import GPTNeoXJapaneseLayer
from gpt_neox_japanese.model.rotary import GPTNeoXJapaneseRotaryEmbedding
from gpt_neox_japanese.quantization.checkpoint_tensors import HEAD, PREFIX
from gpt_neox_japanese.quantization.error_feedback import quantize_with_feedback
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.quantize import quantize

__all__ = ["LayerwiseCalibration"]

_KEPT_ASIDE = 9  # of so many windows, one


class LayerwiseCalibration:
    """A `Calibration` of `convert`.

    Args:
        config: What config.json says.
        tensors: The checkpoint's, by name, floating point.
        allocation: Bits of each tensor, as of `allocate_bits`.
        windows: Ids of a text, int64 [windows, tokens]; two windows at least.

    Raises:
        ArgumentError: The configuration describes no model, or the windows are too few or hold ids
            that the model has not.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        allocation: Mapping[str, int],
        windows: NDArray[np.int64],
    ) -> None:
        num_ids = int(config["vocab_size"])
        if windows.ndim != 2 or len(windows) < 2 or not windows.size:
            raise ArgumentError(
                f"windows of shape {windows.shape} cannot be calibrated on; give two or more of a"
                " token or more, [windows, tokens]"
            )
        if windows.min() < 0 or windows.max() >= num_ids:
            raise ArgumentError(
                f"windows hold ids from {windows.min()} to {windows.max()}, and the model has"
                f" those below {num_ids}; encode the text with its own tokenizer"
            )
        floats = {key: value for key, value in config.items() if key != "quantization_config"}
        self._config = GPTNeoXJapaneseConfig(**floats)
        self._config._attn_implementation = "sdpa"
        self._tensors, self._allocation = tensors, allocation
        self._prefix = PREFIX if any(name.startswith(PREFIX) for name in tensors) else ""
        self.num_tokens = int(windows.size)
        self._num_kept = math.ceil(len(windows) / _KEPT_ASIDE)
        ids = torch.from_numpy(windows)
        # Of each window float32 [1, tokens, hidden]: what the next layer reads.
        self._states = [self._embed(window, quantized=True) for window in ids]
        self._originals = [self._embed(window, quantized=False) for window in self._kept(ids)]
        rotary = GPTNeoXJapaneseRotaryEmbedding(self._config)
        positions = torch.arange(windows.shape[1])[None]
        self._position_embeddings = rotary(self._states[0], positions)
        self._num_done = 0
        self._ready: dict[str, Matrix] = {}

    def quantize(self, name: str, weight: NDArray[np.float32], bits: int) -> Matrix:
        """Quantize a matrix; with the first of a layer, all layers up to it are computed.

        Args:
            name: Of a matrix.
            weight: float32 [outputs, columns].
            bits: 8 or 4.

        Returns:
            The matrix.

        Raises:
            CheckpointError: Weights or activations are not finite.
        """
        if bits != 4 or not name.startswith(f"{self._prefix}layers."):
            return quantize(weight, bits)
        while name not in self._ready:
            self._quantize_next_layer()
        return self._ready.pop(name)

    def divergence(self) -> float:
        """How far the next token's odds are from the original model's, on the text kept aside.

        Returns:
            Kullback and Leibler's divergence, in bits a token.
        """
        while self._num_done < self._config.num_hidden_layers:
            self._quantize_next_layer()
        total = 0.0
        head = HEAD if HEAD in self._tensors else f"{self._prefix}embed_in.weight"
        original, quantized = self._floats(head), self._floats(head, quantized=True)
        with torch.inference_mode():
            for expected, found in zip(self._originals, self._kept(self._states), strict=True):
                wanted = self._log_odds(expected, original)
                difference = wanted - self._log_odds(found, quantized)
                total += float((wanted.exp() * difference).sum(dtype=torch.float64))
        return total / len(self._originals) / self._states[0].shape[1] / math.log(2)

    def _kept(self, windows: Any) -> Any:
        return windows[-self._num_kept :]

    def _embed(self, ids: Tensor, *, quantized: bool) -> Tensor:
        return self._floats(f"{self._prefix}embed_in.weight", ids, quantized=quantized)[None]

    def _floats(
        self, name: str, rows: Tensor | slice = slice(None), *, quantized: bool = False
    ) -> Tensor:
        """A tensor, or rows of it, as they are or as they will be stored; float32."""
        tensor = self._tensors[name][rows].float()
        if quantized and self._allocation[name] < 16:
            matrix = quantize(tensor.numpy(), self._allocation[name])
            return torch.from_numpy(matrix.floats())
        return tensor

    @torch.inference_mode()
    def _quantize_next_layer(self) -> None:
        layer, prefix = self._layer(self._num_done)
        self._originals = [self._apply(layer, states) for states in self._originals]
        linears = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
        moments = self._moments(layer, linears)
        for name, module in linears.items():
            full_name = f"{prefix}{name}.weight"
            bits, weight = self._allocation[full_name], module.weight.numpy()
            try:
                matrix = (
                    quantize_with_feedback(weight, moments.pop(name).numpy())
                    if bits == 4
                    else quantize(weight, bits)
                )
            except CheckpointError as error:
                raise CheckpointError(f"{full_name}: {error}") from error
            module.weight = nn.Parameter(torch.from_numpy(matrix.floats()), requires_grad=False)
            if bits == 4:
                self._ready[full_name] = matrix
        self._states = [self._apply(layer, states) for states in self._states]
        self._num_done += 1

    def _layer(self, index: int) -> tuple[GPTNeoXJapaneseLayer, str]:
        """A layer in float32, and what the names of its tensors begin with."""
        prefix = f"{self._prefix}layers.{index}."
        with torch.device("meta"):
            layer = GPTNeoXJapaneseLayer(self._config, index)
        names = [name for name, _ in layer.named_parameters()]
        floats = {name: self._tensors[prefix + name].float() for name in names}
        layer.load_state_dict(floats, assign=True)
        return layer.eval(), prefix

    def _apply(self, layer: GPTNeoXJapaneseLayer, states: Tensor) -> Tensor:
        result: Tensor = layer(
            states, attention_mask=None, position_embeddings=self._position_embeddings
        )
        return result

    def _moments(
        self, layer: GPTNeoXJapaneseLayer, linears: Mapping[str, nn.Module]
    ) -> dict[str, Tensor]:
        """Of each matrix the mean of x xᵀ over the x that it multiplies; [columns, columns]."""
        moments: dict[str, Tensor] = {}

        def add(name: str, states: Tensor) -> None:
            rows = states.reshape(-1, states.shape[-1])
            if name not in moments:
                moments[name] = rows.new_zeros(rows.shape[1], rows.shape[1])
            moments[name].addmm_(rows.T, rows)

        hooks = [
            module.register_forward_pre_hook(lambda _, given, name=name: add(name, given[0]))
            for name, module in linears.items()
        ]
        used = self._states[: -self._num_kept]
        for states in used:
            self._apply(layer, states)
        for hook in hooks:
            hook.remove()
        num_rows = len(used) * used[0].shape[1]
        return {name: moment.div_(num_rows) for name, moment in moments.items()}

    def _log_odds(self, states: Tensor, head: Tensor) -> Tensor:
        """[tokens, vocabulary]."""
        weight, bias = (
            self._floats(f"{self._prefix}final_layer_norm.{part}") for part in ("weight", "bias")
        )
        eps = self._config.layer_norm_eps
        hidden = nn.functional.layer_norm(states[0], weight.shape, weight, bias, eps)
        return (hidden @ head.T).log_softmax(-1)
