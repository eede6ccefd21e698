"""Quantised checkpoints in transformers: `from_pretrained` builds modules that keep integers.

On the CPU `matmul` multiplies by them; elsewhere the weights are dequantized for each product.
"""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.checkpoint_tensors import quantized_modules
from gpt_neox_japanese.quantization.formats import METHOD, Matrix
from gpt_neox_japanese.quantization.int4 import SCALE
from gpt_neox_japanese.quantization.torch_matmul import can_bypass_torch, matmul_tensor

__all__ = ["QuantizationConfig", "QuantizedEmbedding", "QuantizedLinear"]


@register_quantization_config(METHOD)
class QuantizationConfig(QuantizationConfigMixin):
    """`quantization_config` of config.json.

    Args:
        bits: 8 or 4, of most matrices.
        group_size: Columns that share a scale in int4.
        modules: Name of each quantised module → its bits.

    Raises:
        CheckpointError: A value is not one that is written here.
    """

    def __init__(
        self,
        bits: int = 8,
        group_size: int = GROUP,
        modules: Mapping[str, int] | None = None,
        **_: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        self.bits, self.group_size = bits, group_size
        given = {"quant_method": METHOD, "bits": bits, "group_size": group_size, "modules": modules}
        self.modules = quantized_modules({"quantization_config": given})


class _Quantized(nn.Module):
    """A matrix of integers with scales, [outputs, columns], which is not trained."""

    def __init__(self, outputs: int, columns: int, bits: int) -> None:
        super().__init__()
        self.outputs, self.columns, self.bits = outputs, columns, bits
        if bits == 4 and columns % GROUP:
            raise CheckpointError(
                f"int4 needs a multiple of {GROUP} columns, not {columns}; convert the checkpoint"
                " again"
            )
        if bits == 8:
            weight = torch.empty(outputs, columns, dtype=torch.int8)
            scale = torch.empty(outputs)
        else:
            weight = torch.empty(outputs, columns // 2, dtype=torch.uint8)
            scale = torch.empty(outputs, columns // GROUP, dtype=torch.bfloat16)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Parameter(scale, requires_grad=False)
        self._dtypes = weight.dtype, scale.dtype

    def extra_repr(self) -> str:
        """What `print` says of this module."""
        return f"{self.columns}, {self.outputs}, bits={self.bits}"

    def check(self, name: str) -> None:
        """Refuse parameters that loading gave another type than this module's.

        Args:
            name: Of this module, for the message.

        Raises:
            CheckpointError: A parameter has another dtype.
        """
        for parameter, kind in zip((self.weight, self.weight_scale), self._dtypes, strict=True):
            if parameter.dtype != kind:
                raise CheckpointError(
                    f"{name} has {parameter.dtype} where {self.bits} bits take {kind}; convert the"
                    " checkpoint again"
                )

    def matrix(self) -> Matrix:
        """Return the matrix in NumPy's arrays, without a copy; on the CPU only."""
        scale = self.weight_scale.detach()
        scale = scale.view(torch.uint16) if scale.dtype == torch.bfloat16 else scale
        return Matrix(self.weight.detach().numpy(), scale.numpy())

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights as floats.

        Args:
            dtype: Of the result.

        Returns:
            [outputs, columns].
        """
        return _dequantize(self.weight, self.weight_scale, self.bits).to(dtype)


def _dequantize(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """float32 [outputs, columns], on any device; `formats` says the same in NumPy."""
    if bits == 8:
        return weight.float() * scale.float()[:, None]
    # Byte 2 i holds columns i and 16 + i of its group, byte 2 i + 1 columns 32 + i and 48 + i.
    pairs = weight.view(len(weight), -1, GROUP // 4, 2)
    nibbles = torch.stack([pairs & 15, pairs >> 4], dim=-1)  # (outputs, groups, 16, 2, 2)
    values = nibbles.permute(0, 1, 3, 4, 2).reshape(*pairs.shape[:2], GROUP).float() - 8
    return (values * scale.float()[..., None]).flatten(1)


class QuantizedLinear(_Quantized):
    """`nn.Linear` with a quantised weight; the bias, if there is one, is float.

    Args:
        in_features: Columns.
        out_features: Outputs.
        bits: 8 or 4.
        bias: Whether there is one.
    """

    def __init__(self, in_features: int, out_features: int, bits: int, *, bias: bool) -> None:
        super().__init__(out_features, in_features, bits)
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: [..., in_features], any floating dtype.

        Returns:
            [..., out_features] in the dtype of `x`.
        """
        learning = x.requires_grad and torch.is_grad_enabled()
        if learning or not can_bypass_torch(x, self.weight):
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return functional.linear(x, self.dequantize(x.dtype), bias)
        out = matmul_tensor(x.float(), self.matrix())
        return (out if self.bias is None else out + self.bias).to(x.dtype)


class QuantizedEmbedding(_Quantized):
    """`nn.Embedding` with a quantised weight.

    Args:
        outputs: Ids.
        columns: Channels.
        bits: 8 or 4.
    """

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids.

        Args:
            ids: Any integer dtype, [...].

        Returns:
            float32 [..., columns].
        """
        rows = ids.reshape(-1)
        values = _dequantize(self.weight[rows], self.weight_scale[rows], self.bits)
        return values.reshape(*ids.shape, self.columns)


@register_quantizer(METHOD)
class Quantizer(HfQuantizer):
    """Puts quantised modules in the place of those that the config names, before loading."""

    quantization_config: QuantizationConfig

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to quantise while loading.

        Args:
            *args: Not read.
            **kwargs: Not read.

        Raises:
            CheckpointError: The checkpoint is not quantised.
        """
        if not self.pre_quantized:
            raise CheckpointError(
                "this checkpoint is not quantised; make one that is: neox-ja convert DIR --to int8"
                " --output DIR"
            )

    def update_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Choose the dtype of what is not quantised, and of all activations.

        Args:
            dtype: What the caller of `from_pretrained` wants; not read.

        Returns:
            float32, always.
        """
        return torch.float32

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> None:
        """Keep every tensor as it is stored.

        Args:
            converter: Not read.
            param: Not read.
            dtype: Not read.
        """
        return

    def _process_model_before_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        modules = dict(self.quantization_config.modules)
        for target, source in model.all_tied_weights_keys.items():
            # A head that is the embedding is not stored, and not in the config.
            bits = modules.get(source.removesuffix(".weight"))
            if bits is not None:
                modules.setdefault(target.removesuffix(".weight"), bits)
        for name, bits in modules.items():
            try:
                module = model.get_submodule(name)
            except AttributeError:
                continue  # a head that this model does not have
            with torch.device("meta"):
                model.set_submodule(name, _quantized(name, module, bits))
        _tie_scales(model)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        for name, module in model.named_modules():
            if isinstance(module, _Quantized):
                module.requires_grad_(False)  # loading puts fresh parameters there
                module.check(name)

    @property
    def is_trainable(self) -> bool:
        """Integers have no gradients."""
        return False

    def is_serializable(self, **_: Any) -> bool:
        """`save_pretrained` writes the same tensors again.

        Args:
            **_: Not used.

        Returns:
            True.
        """
        return True


def _quantized(name: str, module: nn.Module, bits: int) -> nn.Module:
    if isinstance(module, nn.Linear):
        return QuantizedLinear(
            module.in_features, module.out_features, bits, bias=module.bias is not None
        )
    if isinstance(module, nn.Embedding):
        return QuantizedEmbedding(module.num_embeddings, module.embedding_dim, bits)
    raise CheckpointError(
        f"quantization_config names {name!r}, a {type(module).__name__}; only linear layers and"
        " embeddings can be quantised"
    )


def _tie_scales(model: PreTrainedModel) -> None:
    """Where matrices are one, their scales are too."""
    tied = dict(model.all_tied_weights_keys)
    for target, source in tied.items():
        module, _, _ = target.rpartition(".")
        if isinstance(model.get_submodule(module), _Quantized):
            model.all_tied_weights_keys[target + SCALE] = source + SCALE
    if isinstance(model._tied_weights_keys, dict):
        model._tied_weights_keys = dict(model.all_tied_weights_keys)
