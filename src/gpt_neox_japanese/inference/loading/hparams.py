"""The numbers of `config.json` that decide a network's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt_neox_japanese.errors import CheckpointError

__all__ = ["HParams"]

_GELU_APPROXIMATION = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


@dataclass(frozen=True)
class HParams:
    """Sizes and constants of a network."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_multiple_size: int
    max_position_embeddings: int
    rotary_dim: int
    rope_theta: float
    layer_norm_eps: float
    gelu_approximation: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> HParams:
        """Read a configuration in transformers 4's or 5's spelling.

        Args:
            config: What config.json says.

        Returns:
            The hyper-parameters; transformers' defaults where the configuration is silent.

        Raises:
            CheckpointError: A number is missing or makes no sense.
        """
        rope = config.get("rope_parameters") or {}
        sizes = {
            name: config.get(name, default)
            for name, default in (
                ("vocab_size", 32000),
                ("hidden_size", 2560),
                ("num_hidden_layers", 32),
                ("num_attention_heads", 32),
                ("intermediate_multiple_size", 4),
                ("max_position_embeddings", 2048),
            )
        }
        for name, size in sizes.items():
            if not isinstance(size, int) or size < 1:
                raise CheckpointError(f"config.json: {name} is {size!r}; it must be 1 or more")
        head_dim, rest = divmod(sizes["hidden_size"], sizes["num_attention_heads"])
        share = rope.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
        rotary_dim = int(head_dim * share)
        if rest or rotary_dim < 2 or rotary_dim % 2 or rotary_dim > head_dim:
            raise CheckpointError(
                f"config.json: {sizes['hidden_size']} channels, {sizes['num_attention_heads']}"
                f" heads and rotary_pct {share} do not give an even number of rotated channels"
            )
        base = rope.get("rope_theta", config.get("rotary_emb_base", 10000))
        if not isinstance(base, int | float) or not 0 < base < math.inf:
            raise CheckpointError(f"config.json: the rotary base is {base!r}; it must be above 0")
        activation = config.get("hidden_act", "gelu")
        kind = rope.get("rope_type", "default")
        if activation not in _GELU_APPROXIMATION or kind != "default":
            raise CheckpointError(
                f"config.json: activation {activation!r} with rotary type {kind!r} is not written"
                " here; use GPTNeoXJapaneseForCausalLM.generate"
            )
        return cls(
            **sizes,
            rotary_dim=rotary_dim,
            rope_theta=float(base),
            layer_norm_eps=float(config.get("layer_norm_eps", 1e-5)),
            gelu_approximation=_GELU_APPROXIMATION[activation],
        )

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def intermediate_size(self) -> int:
        """Channels inside the MLP."""
        return self.hidden_size * self.intermediate_multiple_size
