"""Converts checkpoints: a model directory → one with weights in bfloat16, int8 or int4."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt_neox_japanese.errors import ArgumentError, NeoXJapaneseError
from gpt_neox_japanese.files import outputs
from gpt_neox_japanese.files.model_config import read_config, read_generation_config
from gpt_neox_japanese.files.run_records import RUN_RECORDS
from gpt_neox_japanese.files.tensor_files import read_tensors
from gpt_neox_japanese.quantization.checkpoint_tensors import (
    check_tensors,
    check_writable,
    quantized_modules,
)
from gpt_neox_japanese.quantization.formats import Matrix, stored_matrix
from gpt_neox_japanese.quantization.int4 import SCALE
from gpt_neox_japanese.quantization.quantize import quantize
from gpt_neox_japanese.quantization.safetensors_writer import (
    BitAllocation,
    Quantizer,
    allocate_bits,
    quantization_config,
    write_weights,
)

__all__ = ["Calibration", "convert", "of_floats"]

# Embeddings and heads: each of their rows is one token's, and mistakes in them cost most.
_LOOKUPS = ("embed_in.weight", "embed_out.weight")

_WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|h5|msgpack|gguf)$|\.index\.json$")
# What is written anew, and what tells of the source.
_LEFT_OUT = {"config.json", "README.md", *RUN_RECORDS}


class Calibration(Protocol):
    """Quantizes the matrices of one checkpoint by what they do with a text.

    Attributes:
        num_tokens: How many tokens the text has.
    """

    num_tokens: int

    def quantize(self, name: str, weight: NDArray[np.float32], bits: int) -> Matrix:
        """A `Quantizer`.

        Args:
            name: Of a matrix.
            weight: float32 [outputs, columns].
            bits: 8 or 4.
        """
        ...

    def divergence(self) -> float:
        """How far the quantised model is from the original one, in bits a token."""
        ...


def convert(
    source: Path,
    output: Path,
    bits: int,
    *,
    read: Callable[[Path], Mapping[str, Tensor]],
    search: bool = True,
    calibrate: Callable[[dict[str, Any], Mapping[str, Tensor], BitAllocation], Calibration]
    | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a checkpoint with weights of `bits`, next to everything else that its directory holds.

    `README.md` and the records of a run are left out: they are of another model. The directory
    appears when it is complete. A quantised checkpoint is dequantised first, in memory; made of the
    one that it was made of, the result would be rounded once only.

    Args:
        source: A model directory.
        output: Directory to make.
        bits: 16 (bfloat16), 8 or 4.
        read: Gives a directory's tensors by name; memory-mapped, if they shall not all be in
            memory.
        search: See `quantize`.
        calibrate: Begins a calibration, of config.json, all tensors and the bits that each is to
            have; for `bits` 4 only. None quantises every matrix by itself. How many tokens it took
            and how far the result is from the source then stands in config.json.
        progress: Called with the number of bytes written and of all bytes.

    Returns:
        Bytes of the weights.

    Raises:
        ArgumentError: `calibrate` is given, and `bits` is not 4.
        CheckpointError: The source cannot be read or converted.
        OutputError: The output exists or cannot be written.
        OSError: The disk is full or fails.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from gpt_neox_japanese import default_model_directory
        >>> from gpt_neox_japanese.files.tensor_files import read_tensors
        >>> from gpt_neox_japanese.quantization.convert import convert
        >>> with TemporaryDirectory() as directory:
        ...     output = Path(directory, "int8")
        ...     size = convert(default_model_directory(), output, bits=8, read=read_tensors)
        ...     size == (output / "model.safetensors").stat().st_size
        True
    """
    if calibrate is not None and bits != 4:
        raise ArgumentError(f"calibration is for 4 bits, not for {bits}; leave it out")
    partial = outputs.partial_directory(output, "converted")
    outputs.check_output(output, partial=partial)
    config = read_config(source)
    read_generation_config(source)
    tensors = dict(read(source))
    check_tensors(config, _arrays(tensors), str(source))
    exact = torch.bfloat16 if bits == 16 else torch.float32
    tensors = _dequantize(tensors, quantized_modules(config), exact)
    config.pop("quantization_config", None)
    check_writable(tensors, source)
    _drop_tied_head(tensors, config)
    allocation = allocate_bits(tensors, bits, _LOOKUPS)
    config.pop("torch_dtype", None)
    config["dtype"] = "bfloat16" if bits == 16 else "float32"
    if (quantization := quantization_config(allocation, bits)) is not None:
        config["quantization_config"] = quantization
    calibration = calibrate(config, tensors, allocation) if calibrate is not None else None
    quantizer: Quantizer = (
        calibration.quantize
        if calibration is not None
        else lambda _name, weight, bits: quantize(weight, bits, search=search)
    )

    with outputs.growing(partial, output, "config.json"):
        weights = partial / "model.safetensors"
        write_weights(weights, tensors, allocation, quantizer=quantizer, progress=progress)
        if calibration is not None:
            config["quantization_config"]["calibration"] = {
                "tokens": calibration.num_tokens,
                "divergence_bits": calibration.divergence(),
            }
        for file in sorted(source.iterdir()):
            is_left_out = file.name in _LEFT_OUT or _WEIGHTS.search(file.name)
            if file.is_file() and not is_left_out:
                shutil.copyfile(file, partial / file.name)
        text = json.dumps(config, indent=2) + "\n"
        (partial / "config.json").write_text(text, encoding="utf-8", newline="\n")
        return weights.stat().st_size


@contextmanager
def of_floats(model: Path) -> Iterator[Path]:
    """Find or make what other formats are made of.

    Args:
        model: A model directory.

    Yields:
        The same, or of a quantised one a copy in bfloat16, for the time being.

    Raises:
        CheckpointError: It cannot be read or dequantised.
        NeoXJapaneseError: That of the caller, naming `model` and not the copy.
        OSError: The disk is full or fails.
    """
    if not read_config(model).get("quantization_config"):
        yield model
        return
    with TemporaryDirectory() as folder:
        floats = Path(folder, model.resolve().name)  # of ".." too
        convert(model, floats, bits=16, read=read_tensors)
        try:
            yield floats
        except NeoXJapaneseError as error:  # of a copy that is gone when this is read
            raise type(error)(str(error).replace(str(floats), str(model))) from error


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """The same memory, bfloat16 as uint16."""
    return {
        name: (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in tensors.items()
    }


def _dequantize(
    tensors: Mapping[str, Tensor], modules: Iterable[str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The weights of quantised modules in `dtype`, and without scales; all others as they are."""
    floats = dict(tensors)
    for name in (f"{module}.weight" for module in modules):
        if name in floats:  # a head that this model has
            pair = _arrays({key: tensors[key] for key in (name, name + SCALE) if key in tensors})
            outputs, columns = pair[name].shape
            shape = outputs, columns * (2 if pair[name].dtype == np.uint8 else 1)
            matrix = stored_matrix(pair, name, shape)
            floats[name] = torch.from_numpy(matrix.floats()).to(dtype)
            floats.pop(name + SCALE, None)
    return floats


def _drop_tied_head(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> None:
    """Store a head once that is the embedding."""
    head = tensors.get("embed_out.weight")
    embedding = next((t for n, t in tensors.items() if n.endswith("embed_in.weight")), None)
    if head is None or embedding is None or not config.get("tie_word_embeddings", True):
        return
    if head.shape == embedding.shape and torch.equal(head, embedding):
        del tensors["embed_out.weight"]
