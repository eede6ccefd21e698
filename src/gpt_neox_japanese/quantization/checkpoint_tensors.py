"""Whether the tensors of a checkpoint are those that its config.json describes.

The engine, the model classes and `convert` all ask here, before anything is computed with the
tensors or written. Nothing is read of them but their names, shapes and dtypes; of those that become
a file of another program, the numbers too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.checks import short_repr
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.model_config import sizes
from gpt_neox_japanese.kernels.constants import GROUP
from gpt_neox_japanese.quantization.formats import METHOD, check_tensor, stored_matrix
from gpt_neox_japanese.quantization.int4 import SCALE

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "HEAD",
    "PREFIX",
    "check_exportable",
    "check_tensors",
    "check_writable",
    "quantized_modules",
    "tensor_shapes",
]

PREFIX = "gpt_neox_japanese."
"""What the names of the transformer's tensors begin with, where there is a head beside it."""

HEAD = "embed_out.weight"

_LANGUAGE_MODEL = "GPTNeoXJapaneseForCausalLM"

_INTEGERS = {np.dtype(np.int8): 8, np.dtype(np.uint8): 4}


def check_tensors(
    config: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    where: str,
    *,
    language_model: bool = False,
) -> None:
    """Refuse a checkpoint with tensors that are missing, of another shape, or of no format.

    Tensors that the transformer does not have, such as those of other heads, are not looked at.

    Args:
        config: What config.json says; `check_config` has passed it.
        tensors: By name; bfloat16 as uint16.
        where: The directory, for messages.
        language_model: Whether it must be one, even where config.json does not call it so.

    Raises:
        CheckpointError: The tensors and the configuration do not belong together.
    """
    try:
        _check(config, tensors, language_model)
    except CheckpointError as error:
        raise CheckpointError(f"{where!r}: {error}") from error


def check_exportable(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], where: str
) -> None:
    """Refuse what another program could not run as it is: `check_tensors`, and every number.

    Args:
        config: What config.json says, of floats; `check_config` has passed it.
        tensors: By name; bfloat16 as uint16.
        where: The directory, for messages.

    Raises:
        CheckpointError: It is no whole language model, a tensor would be left out, or a number is
            not finite in float32.
    """
    check_tensors(config, tensors, where, language_model=True)
    matrices, vectors = _shapes(config, PREFIX)
    for name, tensor in tensors.items():
        if name not in matrices and name not in vectors:
            raise CheckpointError(
                f"{where!r}: {name!r:.80} is no tensor of this architecture, and would be left out;"
                " merge adapters first, or remove it"
            )
        if not _is_finite(tensor):
            raise CheckpointError(
                f"{where!r}: {name} holds numbers that are not finite in float32; train it again"
            )


def _is_finite(tensor: NDArray[Any]) -> bool:
    if tensor.dtype == np.uint16:
        return bool(((tensor & 0x7F80) != 0x7F80).all())
    with np.errstate(over="ignore"):  # of float64
        return bool(np.isfinite(tensor.astype(np.float32, copy=False)).all())


def check_writable(tensors: Mapping[str, Tensor], source: Path) -> None:
    """Refuse tensors that nobody could load afterwards, were they written into another file.

    Args:
        tensors: By name.
        source: Where they are from, for messages.

    Raises:
        CheckpointError: One repeats the same numbers, or has a name that a file uses otherwise.
    """
    for name, tensor in tensors.items():
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{str(source)!r}: {name} repeats the same numbers, {tensor.nbytes:,} bytes of"
                " them; remove it from the checkpoint"
            )
        if name == "__metadata__" or (name.endswith(SCALE) and name[: -len(SCALE)] in tensors):
            raise CheckpointError(
                f"{str(source)!r}: a tensor is called {name!r}, a name that the written file has"
                " another use for; give it another one"
            )


def quantized_modules(config: Mapping[str, Any]) -> dict[str, int]:
    """Which modules config.json says are quantised.

    Args:
        config: What config.json says.

    Returns:
        Bits by the names of modules; none where nothing is quantised.

    Raises:
        CheckpointError: `quantization_config` is of another method, or makes no sense.
    """
    quantization = config.get("quantization_config")
    if quantization is None:
        return {}
    if not isinstance(quantization, Mapping) or quantization.get("quant_method") != METHOD:
        raise CheckpointError(
            f"quantization_config is {short_repr(quantization)}; only checkpoints that"
            " `neox-ja convert` has quantised can be used"
        )
    bits, group_size = quantization.get("bits"), quantization.get("group_size", GROUP)
    if not _is_bits(bits) or group_size != GROUP:
        raise CheckpointError(
            f"quantization_config: bits {short_repr(bits)} with group_size {short_repr(group_size)}"
            f" is not written here; bits must be 4 or 8, and group_size {GROUP}"
        )
    modules = quantization.get("modules")
    if not isinstance(modules, Mapping) or not all(map(_is_bits, modules.values())):
        raise CheckpointError(
            "quantization_config: modules must give 4 or 8 bits for names of modules; convert the"
            " checkpoint again"
        )
    return dict(modules)


def _is_bits(value: Any) -> bool:
    return type(value) is int and value in (4, 8)


def _check(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], language_model: bool
) -> None:
    # A model without its head, saved out of one with a head, has the names of the latter there.
    modules = {name.removeprefix(PREFIX): n for name, n in quantized_modules(config).items()}
    has_prefix = language_model or any(name.startswith(PREFIX) for name in tensors)
    matrices, vectors = _shapes(config, PREFIX if has_prefix else "")
    if HEAD not in tensors:
        _check_tied(config, language_model)
        del matrices[HEAD]
    for name, shape in vectors.items():
        check_tensor(tensors, name, shape)
    for name, matrix_shape in matrices.items():
        matrix = stored_matrix(tensors, name, matrix_shape)
        stored = _INTEGERS.get(matrix.numbers.dtype)
        described = modules.get(name.removeprefix(PREFIX).removesuffix(".weight"))
        if stored != described:
            raise CheckpointError(
                f"{name} has {f'{stored} bits' if stored else 'floats'}, but quantization_config of"
                f" config.json says {f'{described} bits' if described else 'nothing of it'};"
                " convert the checkpoint again"
            )


def _check_tied(config: Mapping[str, Any], language_model: bool) -> None:
    """Refuse a language model whose head is neither stored nor the embedding."""
    named = config.get("architectures")
    is_named = isinstance(named, list) and _LANGUAGE_MODEL in named
    if (language_model or is_named) and not config.get("tie_word_embeddings", True):
        raise CheckpointError(
            f"{HEAD} is missing, and config.json says that the head is not the embedding"
            " (tie_word_embeddings); copy the weights again"
        )


def _shapes(
    config: Mapping[str, Any], prefix: str
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int]]]:
    """`tensor_shapes` of a configuration."""
    size = sizes(config)
    return tensor_shapes(
        vocab_size=size["vocab_size"],
        hidden_size=size["hidden_size"],
        intermediate_size=size["hidden_size"] * size["intermediate_multiple_size"],
        num_hidden_layers=size["num_hidden_layers"],
        prefix=prefix,
    )


def tensor_shapes(
    *,
    vocab_size: int,
    hidden_size: int,
    intermediate_size: int,
    num_hidden_layers: int,
    prefix: str = PREFIX,
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int]]]:
    """Which tensors a network has.

    Args:
        vocab_size: Rows of the tables.
        hidden_size: Channels.
        intermediate_size: Channels inside the MLP.
        num_hidden_layers: Layers.
        prefix: What the names begin with; not that of the head, which stands beside.

    Returns:
        Shapes of all matrices, [outputs, columns], and of all vectors, by name. The head is among
        them, though it is not stored where it is the embedding.
    """
    table = (vocab_size, hidden_size)
    matrices = {f"{prefix}embed_in.weight": table, HEAD: table}
    vectors = [f"{prefix}final_layer_norm.{part}" for part in ("weight", "bias")]
    for layer in (f"{prefix}layers.{index}" for index in range(num_hidden_layers)):
        matrices[f"{layer}.attention.query_key_value.weight"] = (3 * hidden_size, hidden_size)
        matrices[f"{layer}.attention.dense.weight"] = (hidden_size, hidden_size)
        matrices[f"{layer}.mlp.dense_h_to_4h.weight"] = (intermediate_size, hidden_size)
        matrices[f"{layer}.mlp.dense_4h_to_h.weight"] = (hidden_size, intermediate_size)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            vectors += [f"{layer}.{norm}.{part}" for part in ("weight", "bias")]
    vectors.append(f"{prefix}layers.{num_hidden_layers - 1}.attention.dense_bias")
    return matrices, dict.fromkeys(vectors, (hidden_size,))
