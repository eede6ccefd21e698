"""The numbers of `config.json` that decide a network's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_config import check_config, rotary_parameters, sizes

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
        check_config(config, "config.json: ")
        rope = rotary_parameters(config, "config.json: ")
        size = sizes(config)
        head_dim = size["hidden_size"] // size["num_attention_heads"]
        activation = config.get("hidden_act", "gelu")
        kind = rope["rope_type"]
        if activation not in _GELU_APPROXIMATION or kind != "default":
            raise CheckpointError(
                f"config.json: activation {activation!r} with rotary type {kind!r} is not written"
                " here; use GPTNeoXJapaneseForCausalLM.generate"
            )
        return cls(
            **size,
            rotary_dim=int(head_dim * rope["partial_rotary_factor"]),
            rope_theta=float(rope["rope_theta"]),
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
