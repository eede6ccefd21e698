"""What every model of this kind shares: declared abilities, safe loading, fresh weights."""
# transformers' methods carry no annotations, and its class attributes are declared as instance
# variables, which ClassVar would contradict.
# mypy: disallow-untyped-calls=False
# ruff: noqa: RUF012

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_directory import fetch_weights, is_hub_id
from gpt_neox_japanese.model.attention import GPTNeoXJapaneseAttention
from gpt_neox_japanese.model.config import GPTNeoXJapaneseConfig
from gpt_neox_japanese.model.decode.cache_names import CACHE_NAMES
from gpt_neox_japanese.model.layer import GPTNeoXJapaneseLayer
from gpt_neox_japanese.model.loading.safety import check_directory, hub_kwargs, loading_errors
from gpt_neox_japanese.quantization import hf_modules as _registers_quantized_checkpoints  # noqa: F401

__all__ = ["GPTNeoXJapanesePreTrainedModel"]


class GPTNeoXJapanesePreTrainedModel(PreTrainedModel):
    """What every GPT-NeoX-Japanese model shares: weight initialisation and declared abilities."""

    config: GPTNeoXJapaneseConfig
    config_class = GPTNeoXJapaneseConfig
    base_model_prefix = "gpt_neox_japanese"
    supports_gradient_checkpointing = True
    _no_split_modules = ["GPTNeoXJapaneseLayer"]
    _skip_keys_device_placement = [*CACHE_NAMES]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": GPTNeoXJapaneseLayer,
        "attentions": GPTNeoXJapaneseAttention,
    }
    # Tables that transformers 4 saved and that are computed here.
    _keys_to_ignore_on_load_unexpected = [
        r"attention\.rotary_emb\.inv_freq$",
        r"attention\.bias$",
        r"attention\.masked_bias$",
    ]

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        if isinstance(config, GPTNeoXJapaneseConfig):
            config.check()  # values may have been assigned since it was made
        super().__init__(config, *args, **kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Self:
        """Load a model from a directory or the Hub; the arguments are those of transformers.

        Args:
            pretrained_model_name_or_path: A model directory, or a Hub id.
            *args: As of `PreTrainedModel.from_pretrained`.
            **kwargs: The same.

        Returns:
            The model, ready for inference.

        Raises:
            CheckpointError: (a `ValueError`) if a file of the directory is broken or a trap.
            OSError: If there is no such model.
        """
        source = str(pretrained_model_name_or_path)
        subfolder = kwargs.get("subfolder") or ""
        directory = Path(source, subfolder)
        if not os.path.isdir(directory) and is_hub_id(source):
            try:
                snapshot = fetch_weights(source, subfolder, **hub_kwargs(kwargs))
            except CheckpointError as error:
                raise OSError(str(error)) from error
            directory = snapshot / subfolder
            if not (directory / "adapter_config.json").exists():  # for its base it would count too
                kwargs["revision"] = snapshot.name  # no other files are loaded than are checked
        elif pretrained_model_name_or_path is None or not os.path.isdir(directory):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        config = kwargs.get("config")
        check_directory(directory, config if isinstance(config, PreTrainedConfig) else None, kwargs)
        with loading_errors(source):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, GPTNeoXJapaneseAttention) and module.dense_bias is not None:
            init.zeros_(module.dense_bias)
