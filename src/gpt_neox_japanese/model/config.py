"""`GPTNeoXJapaneseConfig`: the numbers that define a model, as config.json holds them."""
# Methods of transformers and torch carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.model.decode.cache_names import CACHE_NAMES

__all__ = ["GPTNeoXJapaneseConfig"]

# Each size and the maximum that is accepted. Building a model takes memory for every layer even
# before there are weights, so a damaged or hostile file must not name any number it likes.
_SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**18,
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**18,
    "intermediate_multiple_size": 2**10,
    "max_position_embeddings": 2**31,
}
# The two names of each rotary number: transformers 4's argument, transformers 5's dictionary key.
_ROTARY_KEYS = {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}


@strict
class GPTNeoXJapaneseConfig(PreTrainedConfig):
    """The hyper-parameters of a GPT-NeoX-Japanese model; the defaults are those of the 2.7B.

    Args:
        vocab_size: Number of token ids.
        hidden_size: Channels of the residual stream; a multiple of `num_attention_heads`.
        num_hidden_layers: Transformer layers.
        num_attention_heads: Attention heads of every layer.
        intermediate_multiple_size: The MLP is `hidden_size * intermediate_multiple_size` wide.
        hidden_act: Name of the MLP's activation; `"gelu"` is the exact (erf) GELU.
        rotary_pct: Fraction of each head's channels that is rotated, in (0, 1].
        rotary_emb_base: Base of the rotary frequencies, positive.
        rope_parameters: The same two numbers as transformers 5 spells them,
            `{"rope_type": "default", "rope_theta": …, "partial_rotary_factor": …}`. Other rope
            types (`"linear"`, `"yarn"`, …) work as in transformers.
        max_position_embeddings: Longest sequence the model is meant for, in tokens.
        initializer_range: Standard deviation of freshly initialised weights.
        layer_norm_eps: Epsilon of every LayerNorm.
        use_cache: Whether a forward pass returns its keys and values.
        bos_token_id: Id of `<|startoftext|>`.
        eos_token_id: Id of `<|endoftext|>`, or several ids that end a text.
        pad_token_id: Id that fills up short rows, if there is one.
        attention_dropout: Dropout probability of attention weights, used in training only.
        hidden_dropout: Dropout probability of each sublayer's output, used in training only.
        tie_word_embeddings: Whether input and output embeddings are one tensor.
        is_decoder: Kept for old configuration files; the model is always a decoder.

    Raises:
        ArgumentError: (a `ValueError`) if a value makes no sense, or if `rope_parameters`
            contradicts `rotary_pct` or `rotary_emb_base`.
        huggingface_hub.errors.StrictDataclassFieldValidationError: If a value has the wrong type.
    """

    model_type = "gpt_neox_japanese"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [*CACHE_NAMES]

    # A row-wise split embedding lets the tied, column-wise split head share its shards. A slice of
    # `query_key_value` is whole heads because its rows are packed [heads, 3, head_dim].
    base_model_tp_plan: ClassVar[dict[str, str]] = {
        "embed_in": "embedding_rowwise",
        "layers.*.attention.query_key_value": "colwise",
        "layers.*.attention.dense": "rowwise",
        "layers.*.mlp.dense_h_to_4h": "colwise",
        "layers.*.mlp.dense_4h_to_h": "rowwise",
    }
    base_model_pp_plan: ClassVar[dict[str, Sequence[list[str]]] | None] = {
        "embed_in": (["input_ids"], ["inputs_embeds"]),
        "layers": (["hidden_states", "attention_mask"], ["hidden_states"]),
        "final_layer_norm": (["hidden_states"], ["hidden_states"]),
    }
    base_model_fsdp_plan: ClassVar[dict[str, str]] = {
        "embed_in": "free_full_weight",
        "layers.*": "free_full_weight",
        "final_layer_norm": "keep_full_weight",
    }

    vocab_size: int = 32000
    hidden_size: int = 2560
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    intermediate_multiple_size: int = 4
    hidden_act: str = "gelu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    use_cache: bool = True
    bos_token_id: int | None = 31996
    eos_token_id: int | list[int] | None = 31999
    pad_token_id: int | None = None
    rope_parameters: dict[str, Any] | None = None
    attention_dropout: float | int = 0.1
    hidden_dropout: float | int = 0.0
    is_decoder: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.output_attentions and self._attn_implementation is None:
            self._attn_implementation = "eager"
        self._check_values()

    @property
    def rotary_pct(self) -> float:
        """Fraction of each head's channels that is rotated."""
        return float(self._rope["partial_rotary_factor"])

    @rotary_pct.setter
    def rotary_pct(self, value: float) -> None:
        """Change the fraction of rotated channels.

        Args:
            value: In (0, 1].
        """
        self._rope["partial_rotary_factor"] = value

    @property
    def rotary_emb_base(self) -> float:
        """Base of the rotary frequencies."""
        base: float = self._rope["rope_theta"]
        return base

    @rotary_emb_base.setter
    def rotary_emb_base(self, value: float) -> None:
        """Change the base of the rotary frequencies.

        Args:
            value: Above 0.
        """
        self._rope["rope_theta"] = value

    @property
    def _rope(self) -> dict[str, Any]:
        assert self.rope_parameters is not None
        return self.rope_parameters

    def convert_rope_params_to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Gather the rotary arguments of both spellings in `rope_parameters`.

        transformers calls this from `__post_init__` with every argument that is not a field, and
        goes on with what is returned.

        Args:
            **kwargs: Arguments that are no fields, such as `rotary_pct` and `rope_scaling`.

        Returns:
            Those that are not rotary.

        Raises:
            ArgumentError: Two spellings contradict each other.
        """
        rope = dict(kwargs.pop("rope_scaling", None) or self.rope_parameters or {})
        for argument, key in _ROTARY_KEYS.items():
            value = kwargs.pop(argument, None)
            if value is not None and rope.setdefault(key, value) != value:
                raise ArgumentError(
                    f"{argument}={value!r} contradicts rope_parameters[{key!r}]={rope[key]!r}; "
                    "give one of them, or the same value twice"
                )
        rope.setdefault("rope_theta", 10000)
        rope.setdefault("partial_rotary_factor", 1.0)
        self.rope_parameters = rope
        self.ignore_keys_at_rope_validation = {"partial_rotary_factor"}
        self.standardize_rope_params()
        return kwargs

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json holds, the rotary numbers under both of their names.

        transformers 4 reads only its own names: without them it would silently fall back to the
        defaults.
        """
        fields: dict[str, Any] = super().to_dict()
        for argument, key in _ROTARY_KEYS.items():
            fields[argument] = fields["rope_parameters"][key]
        return fields

    def _check_values(self) -> None:
        for name, maximum in _SIZES.items():
            size = getattr(self, name)
            if not isinstance(size, int) or not 1 <= size <= maximum:
                raise ArgumentError(
                    f"{name}={size!r} must be from 1 to {maximum}; the default is "
                    f"{getattr(type(self), name)}"
                )
        if self.hidden_size % self.num_attention_heads:
            raise ArgumentError(
                f"hidden_size={self.hidden_size} is not divisible by "
                f"num_attention_heads={self.num_attention_heads}; choose a multiple, such as "
                f"{self.num_attention_heads * max(1, self.hidden_size // self.num_attention_heads)}"
            )
        for name in ("attention_dropout", "hidden_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(
                    f"{name}={getattr(self, name)} is a probability; it must be in [0, 1)"
                )
        for name in ("layer_norm_eps", "rotary_emb_base"):
            if not getattr(self, name) > 0:
                raise ArgumentError(f"{name}={getattr(self, name)} must be positive")
        if self.initializer_range < 0:
            raise ArgumentError(
                f"initializer_range={self.initializer_range} is a standard deviation; it cannot "
                "be negative"
            )
        self._check_rotary_channels()

    def _check_rotary_channels(self) -> None:
        if not 0 < self.rotary_pct <= 1:
            raise ArgumentError(
                f"rotary_pct={self.rotary_pct} must be in (0, 1]: the fraction of each head's "
                "channels to rotate"
            )
        head_dim = self.hidden_size // self.num_attention_heads
        rotated = int(head_dim * self.rotary_pct)
        if rotated == 0 or rotated % 2:
            raise ArgumentError(
                f"rotary_pct={self.rotary_pct} rotates {rotated} of the {head_dim} channels of a "
                "head; rotation works on pairs, so choose rotary_pct, hidden_size and "
                "num_attention_heads that give an even number above zero"
            )
