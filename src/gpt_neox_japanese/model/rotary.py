"""Rotary position embedding: positions become rotations of query and key channels.

Channel i and channel i + R/2 of a head's first R = head_dim * rotary_pct channels are the two
coordinates of a point, turned by the angle position * base^(-2i/R). The dot product of a rotated
query and a rotated key then depends on their distance only (https://arxiv.org/abs/2104.09864).
"""
# Methods of transformers and torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update

__all__ = ["GPTNeoXJapaneseRotaryEmbedding", "rotate"]


class GPTNeoXJapaneseRotaryEmbedding(nn.Module):
    """The cosines and sines of a batch's positions, always in float32.

    An angle is as large as the position itself, so a half-precision frequency or table would be
    wrong by whole radians far into a text. Casting the model leaves this module alone.
    """

    inv_freq: Tensor
    """Rotation per position in radians, float32 [R/2]."""
    original_inv_freq: Tensor

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        # These names are the contract of transformers' `dynamic_rope_update` and `_init_weights`.
        self.rope_type: str = config.rope_parameters["rope_type"]
        self.max_seq_len_cached: int = config.max_position_embeddings
        self.original_max_seq_len: int = config.max_position_embeddings
        inv_freq, self.attention_scaling = self._frequencies()
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    def _frequencies(self) -> tuple[Tensor, float]:
        initialize: Callable[..., tuple[Tensor, float]] = (
            self.compute_default_rope_parameters
            if self.rope_type == "default"
            else ROPE_INIT_FUNCTIONS[self.rope_type]
        )
        return initialize(self.config)

    @staticmethod
    def compute_default_rope_parameters(config: PreTrainedConfig, **_: Any) -> tuple[Tensor, float]:
        """Compute the frequencies base^(-2i/R).

        Args:
            config: Tells the base and how many channels of a head are rotated.
            **_: Not used.

        Returns:
            The frequencies, float32 [R/2], and the scale of the tables, 1.
        """
        rope = config.rope_parameters
        head_dim = config.hidden_size // config.num_attention_heads
        rotated = int(head_dim * rope.get("partial_rotary_factor", 1.0))
        exponents = torch.arange(0, rotated, 2, dtype=torch.float32) / rotated
        return 1.0 / (rope["rope_theta"] ** exponents), 1.0

    @torch.no_grad()
    @dynamic_rope_update  # type: ignore[untyped-decorator]
    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the tables once for all layers.

        Args:
            hidden_states: Tells the device; its values are not read.
            position_ids: int64 [batch or 1, tokens].

        Returns:
            Cosines and sines, float32 [batch or 1, 1, tokens, R/2]; the 1 stands for the heads.
        """
        inv_freq = self.inv_freq.to(hidden_states.device)
        angles = position_ids[:, None, :, None].float() * inv_freq
        return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling

    def _apply(
        self, fn: Callable[[Tensor], Tensor], recurse: bool = True
    ) -> GPTNeoXJapaneseRotaryEmbedding:
        """Follow the model to another device, but not to another precision.

        No checkpoint holds the frequencies: a model that was built on the meta device computes
        them when it is given memory.
        """
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, before in exact.items():
            after = self._buffers[name]
            if before is None or after is None:
                continue
            if before.is_meta and not after.is_meta:
                self._buffers[name] = self._frequencies()[0].to(after.device)
            elif after.dtype != before.dtype:
                self._buffers[name] = before.to(after.device)
        return self


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first R channels of every head by its position's angle.

    Args:
        states: Queries or keys, [batch, heads, tokens, head_dim], any floating dtype.
        cos: float32 [batch or 1, 1, tokens, R/2].
        sin: As `cos`.

    Returns:
        Tensor of the shape and dtype of `states`; the arithmetic is float32.
    """
    half = cos.shape[-1]
    first, second, rest = states.split((half, half, states.shape[-1] - 2 * half), dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    turned = turned.to(states.dtype)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
