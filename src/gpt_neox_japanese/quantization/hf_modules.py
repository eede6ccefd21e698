"""Quantised checkpoints in transformers: `from_pretrained` builds modules that keep integers.

On the CPU `matmul` multiplies by them; elsewhere the weights are dequantized for each product. The
modules are not trained, but a gradient goes through them, so that adapters beside them can be.
`halve_matrices` puts them into a model of floats, with bfloat16 for integers.
"""
# transformers' methods carry no annotations.
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from gpt_neox_japanese.errors import ArgumentError, CheckpointError
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.checkpoint_tensors import quantized_modules
from gpt_neox_japanese.quantization.formats import METHOD
from gpt_neox_japanese.quantization.frozen_product import dequantize_tensor, frozen_product
from gpt_neox_japanese.quantization.int4 import SCALE
from gpt_neox_japanese.quantization.torch_matmul import can_bypass_torch, is_compiling_or_tracing

__all__ = [
    "QuantizationConfig",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "halve_matrices",
    "parameter_sizes",
]


@register_quantization_config(METHOD)
class QuantizationConfig(QuantizationConfigMixin):
    """`quantization_config` of config.json.

    Args:
        bits: 8 or 4, of most matrices.
        group_size: Columns that share a scale in int4.
        modules: Name of each quantised module → its bits.
        calibration: What `convert` says of the text that it quantised by; kept, and not read.

    Raises:
        CheckpointError: A value is not one that is written here.
    """

    def __init__(
        self,
        bits: int = 8,
        group_size: int = GROUP,
        modules: Mapping[str, int] | None = None,
        calibration: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]
        if calibration is not None:
            self.calibration = calibration
        self.bits, self.group_size = bits, group_size
        given = {"quant_method": METHOD, "bits": bits, "group_size": group_size, "modules": modules}
        self.modules = quantized_modules({"quantization_config": given})


class _Quantized(nn.Module):
    """A matrix that is not trained, [outputs, columns]: integers with scales, or bfloat16."""

    def __init__(self, outputs: int, columns: int, bits: int) -> None:
        super().__init__()
        self.outputs, self.columns, self.bits = outputs, columns, bits
        if bits == 4 and columns % GROUP:
            raise CheckpointError(
                f"int4 needs a multiple of {GROUP} columns, not {columns}; convert the checkpoint"
                " again"
            )
        scale = None
        if bits == 16:
            weight = torch.empty(outputs, columns, dtype=torch.bfloat16)
        elif bits == 8:
            weight = torch.empty(outputs, columns, dtype=torch.int8)
            scale = torch.empty(outputs)
        else:
            weight = torch.empty(outputs, columns // 2, dtype=torch.uint8)
            scale = torch.empty(outputs, columns // GROUP, dtype=torch.bfloat16)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = None if scale is None else nn.Parameter(scale, requires_grad=False)
        self._dtypes = (  # bfloat16 may become any float
            {} if scale is None else {"weight": weight.dtype, "weight_scale": scale.dtype}
        )

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
        for parameter, kind in self._dtypes.items():
            found = getattr(self, parameter).dtype
            if found != kind:
                raise CheckpointError(
                    f"{name} has {found} where {self.bits} bits take {kind}; convert the"
                    " checkpoint again"
                )

    def undo_cast(self) -> None:
        """Make bfloat16 again of scales that `parameter.data = …` made float32: nothing is lost.

        PEFT's `prepare_model_for_kbit_training` casts so whatever is bfloat16.

        Raises:
            ArgumentError: A parameter was cast to something else.
        """
        for name, kind in self._dtypes.items():
            parameter = getattr(self, name)
            if parameter.dtype == kind:
                continue
            if (parameter.dtype, kind) != (torch.float32, torch.bfloat16):
                raise ArgumentError(
                    f"{name} of a quantised module was cast from {kind} to {parameter.dtype}; load"
                    " the model again, and call its dequantize() before casting it"
                )
            parameter.data = parameter.data.to(kind)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.undo_cast()
        super()._save_to_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Go to another device, keep what belongs to integers, and refuse to compute otherwise."""
        if self.weight_scale is None:
            return cast(Self, super()._apply(fn, recurse))
        dtype = fn(torch.empty(0, dtype=torch.float32, device=self.weight.device)).dtype
        if dtype != torch.float32:
            raise ArgumentError(
                f"a quantised model computes in float32, and cannot be cast to {dtype}; call its"
                " dequantize() before"
            )
        kept = super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)
        return cast(Self, kept)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights as floats.

        Args:
            dtype: Of the result.

        Returns:
            [outputs, columns].
        """
        if self.weight.dtype == dtype:
            return self.weight
        return dequantize_tensor(self.weight, self.weight_scale).to(dtype)


class QuantizedLinear(_Quantized):
    """`nn.Linear` with a stored weight; the bias, if there is one, is float.

    Args:
        in_features: Columns.
        out_features: Outputs.
        bits: 16, 8 or 4.
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
            [..., out_features] in the dtype of `x`, or of autocast.
        """
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        learning = x.requires_grad and torch.is_grad_enabled()
        bypass = not is_compiling_or_tracing() and (learning or can_bypass_torch(x, self.weight))
        if self.weight.dtype == x.dtype or not bypass:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return functional.linear(x, self.dequantize(x.dtype), bias)
        self.undo_cast()
        out = frozen_product(x, self.weight, self.weight_scale)
        return out if self.bias is None else (out + self.bias).to(x.dtype)


class QuantizedEmbedding(_Quantized):
    """`nn.Embedding` with a stored weight.

    Args:
        outputs: Ids.
        columns: Channels.
        bits: 16, 8 or 4.
    """

    def forward(self, ids: Tensor) -> Tensor:
        """Look up ids.

        Args:
            ids: Any integer dtype, [...].

        Returns:
            float32 [..., columns].
        """
        rows = ids.reshape(-1)
        scale = None if self.weight_scale is None else self.weight_scale[rows]
        values = dequantize_tensor(self.weight[rows], scale)
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
                " --output NEW_DIR"
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
        found = {
            place: bits
            for name, bits in self.quantization_config.modules.items()
            if (place := _place(model, name)) is not None
        }
        self.quantization_config.modules = found  # as `save_pretrained` will call them
        modules = dict(found)
        for target, source in model.all_tied_weights_keys.items():
            # A head that is the embedding is not stored, and not in the config.
            bits = modules.get(source.removesuffix(".weight"))
            if bits is not None:
                modules.setdefault(target.removesuffix(".weight"), bits)
        for name, bits in modules.items():
            with torch.device("meta"):
                model.set_submodule(name, _quantized(name, model.get_submodule(name), bits))
        _tie_scales(model)

    def _process_model_after_weight_loading(self, model: PreTrainedModel, **_: Any) -> None:
        for name, module in model.named_modules():
            if isinstance(module, _Quantized):
                module.requires_grad_(False)  # loading puts fresh parameters there
                module.check(name)

    @property
    def is_trainable(self) -> bool:
        """Adapters can be trained beside the integers, which have no gradients themselves."""
        return True

    def _dequantize(self, model: PreTrainedModel, dtype: torch.dtype | None = None) -> Any:
        """Put layers of floats in the place of all that are quantised; see `model.dequantize`."""
        floats: dict[nn.Parameter, nn.Parameter] = {}  # where matrices are one, they stay one
        for name, module in list(model.named_modules()):
            if isinstance(module, _Quantized):
                weight = module.weight
                if weight not in floats:
                    floats[weight] = nn.Parameter(module.dequantize(dtype or torch.float32))
                model.set_submodule(name, _of_floats(module, floats[weight]))
        for tied in (model.all_tied_weights_keys, model._tied_weights_keys):
            for name in [name for name in tied or () if name.endswith(SCALE)]:
                del tied[name]
        return model

    def is_serializable(self, **_: Any) -> bool:
        """`save_pretrained` writes the same tensors again.

        Args:
            **_: Not used.

        Returns:
            True.
        """
        return True


def _place(model: PreTrainedModel, name: str) -> str | None:
    """What a model calls a module of its checkpoint; None of a head or a layer that it lacks.

    A checkpoint with a head has a prefix before its names, and either kind of model is made of it.
    """
    prefix = f"{model.base_model_prefix}."
    for place in (name, prefix + name, name.removeprefix(prefix)):
        with suppress(AttributeError):
            model.get_submodule(place)
            return place
    part, _, rest = name.removeprefix(prefix).partition(".")
    layers = map(str, range(model.config.num_hidden_layers))  # the caller may want the first ones
    if part == "layers" and rest.partition(".")[0] in layers:
        raise CheckpointError(
            f"quantization_config names {name!r}, which a {type(model).__name__} does not have;"
            " convert the checkpoint again"
        )
    return None


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


def _of_floats(module: _Quantized, weight: nn.Parameter) -> nn.Module:
    """The layer of floats that does the same."""
    layer: nn.Module
    with torch.device("meta"):
        if isinstance(module, QuantizedLinear):
            layer = nn.Linear(module.columns, module.outputs, bias=False)
            layer.bias = cast(nn.Parameter, module.bias)
        else:
            layer = nn.Embedding(module.outputs, module.columns)
    layer.weight = weight
    return layer


def halve_matrices(model: nn.Module) -> None:
    """Store the matrices of a model in bfloat16, and everything else in float32.

    Products take activations of any dtype, and the matrices are not trained any more.

    Args:
        model: Changed in place; it may be quantised in part, which stays as it is.
    """
    stored: dict[nn.Parameter, nn.Parameter] = {}  # where matrices are one, they stay one
    for name, module in list(model.named_modules()):
        if not isinstance(module, (nn.Linear, nn.Embedding)):
            continue
        with torch.device("meta"):
            half = _quantized(name, module, 16)
        weight = cast(nn.Parameter, module.weight)
        if weight not in stored:
            stored[weight] = nn.Parameter(weight.detach().bfloat16(), requires_grad=False)
        half.weight = stored[weight]
        if isinstance(module, nn.Linear):
            half.bias = module.bias
        model.set_submodule(name, half)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data = parameter.data.float()


def parameter_sizes(model: nn.Module) -> Iterator[tuple[nn.Parameter, int]]:
    """Go through a model's parameters with the number of weights that each holds.

    Args:
        model: Any.

    Yields:
        A parameter and its weights: of int4 a byte holds two, and scales hold none.
    """
    quantized = (module for module in model.modules() if isinstance(module, _Quantized))
    stored = {id(module.weight): module for module in quantized}
    scales = {id(module.weight_scale) for module in stored.values()}
    for parameter in model.parameters():
        if id(parameter) in stored:
            module = stored[id(parameter)]
            yield parameter, module.outputs * module.columns
        else:
            yield parameter, 0 if id(parameter) in scales else parameter.numel()


def _tie_scales(model: PreTrainedModel) -> None:
    """Where matrices are one, their scales are too."""
    tied = dict(model.all_tied_weights_keys)
    for target, source in tied.items():
        module, _, _ = target.rpartition(".")
        if isinstance(model.get_submodule(module), _Quantized):
            model.all_tied_weights_keys[target + SCALE] = source + SCALE
    if isinstance(model._tied_weights_keys, dict):
        model._tied_weights_keys = dict(model.all_tied_weights_keys)
