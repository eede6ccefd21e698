"""A GGUF file that `gguf_writer` wrote → a model directory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpt_neox_japanese.errors import CheckpointError, NeoXJapaneseError
from gpt_neox_japanese.files import outputs
from gpt_neox_japanese.files.json_files import parse_json
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import TABLES
from gpt_neox_japanese.interop.gguf_network import LlamaTensor, from_llama, to_llama
from gpt_neox_japanese.interop.gguf_types import import_gguf
from gpt_neox_japanese.interop.gguf_writer import FILES, KEY, NUM_IDS
from gpt_neox_japanese.quantization.safetensors_writer import BitAllocation, write_weights

if TYPE_CHECKING:
    import torch

__all__ = ["read_gguf"]

_DTYPE_KEYS = ("dtype", "torch_dtype")
_NEEDED = ("config.json", "vocab.txt", "emoji.json")


def read_gguf(
    file: Path, output: Path, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Make the model directory again that a GGUF file was made of.

    Weights are bfloat16 if the file's are, or config.json says so, and no number changes by that;
    all others are float32, and those that were quantised stay as coarse as they are.

    Args:
        file: What `write_gguf` wrote.
        output: Directory to make; it appears when it is complete.
        progress: Called with the number of bytes written and of all bytes.

    Returns:
        Bytes of the weights.

    Raises:
        ArgumentError: The package gguf is missing.
        CheckpointError: The file is broken, or was written by somebody else.
        OutputError: The output exists or cannot be written.
        OSError: The disk is full or fails.
    """
    partial = outputs.partial_directory(output, "converted")
    outputs.check_output(output, partial=partial)
    tensors = _Tensors(file)
    config = dict(tensors.config)
    names = list(tensors)
    if config.get("tie_word_embeddings", True) and bool(
        (tensors[TABLES[0]] == tensors[TABLES[1]]).all()
    ):
        names.remove(TABLES[1])
    dtypes = {str(config[key]).removeprefix("torch.") for key in _DTYPE_KEYS if config.get(key)}
    allocation = _allocate(tensors, names, "bfloat16" in dtypes)
    written = "float32" if 32 in allocation.values() else "bfloat16"
    if dtypes - {"float32", written}:  # to another one, whoever loads the weights would round them
        config["dtype"] = written
        config.pop("torch_dtype", None)
    config["vocab_size"] = tensors.hparams.vocab_size

    with outputs.growing(partial, output, "config.json"):
        files = tensors.files
        if config != tensors.config:
            files["config.json"] = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        for name, text in files.items():
            (partial / name).write_bytes(text.encode())
        with _errors_of(file):
            Checkpoint.open(partial)
        weights = partial / "model.safetensors"
        write_weights(weights, tensors, allocation, progress=progress)
        return weights.stat().st_size


class _Tensors(Mapping[str, "torch.Tensor"]):
    """The tensors of a checkpoint, each made of the file's when it is asked for.

    Args:
        file: A GGUF file.

    Attributes:
        files: The other files of the model directory.
        config: What config.json says.
        hparams: Sizes and constants; rows that only pad the tables are not in the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._gguf = import_gguf()
        reader = _open(file)
        self._stored = {tensor.name: tensor for tensor in reader.tensors}
        self.files = {
            name: str(_contents(reader, file, KEY + name))
            for name in FILES
            if KEY + name in reader.fields
        }
        if missing := [name for name in _NEEDED if name not in self.files]:
            raise CheckpointError(
                f"{str(file)!r} holds no {missing[0]}, so it was not written by `neox-ja convert`;"
                " only such files can be converted back"
            )
        self.config = _json(file, self.files["config.json"])
        if self.config.get("quantization_config"):
            raise CheckpointError(
                f"{str(file)!r}: its config.json has a quantization_config, so it was not written"
                " by `neox-ja convert`; only such files can be converted back"
            )
        num_ids = _contents(reader, file, NUM_IDS)
        if not isinstance(num_ids, int) or num_ids < 1:
            raise CheckpointError(f"{str(file)!r}: {NUM_IDS} is {num_ids!r:.40}; write it again")
        with _errors_of(file):
            self.hparams = replace(HParams.from_config(self.config), vocab_size=num_ids)
        self._wanted = {t.source: t for t in to_llama(self.hparams) if t.source}
        for tensor in to_llama(self.hparams):
            if not tensor.source and self._read(tensor).any():
                raise CheckpointError(
                    f"{str(file)!r}: {tensor.name} is not zero, and this architecture has no such"
                    " bias; convert only files that `neox-ja convert` wrote"
                )

    def __getitem__(self, name: str) -> torch.Tensor:
        import torch

        wanted = self._wanted[name]
        return torch.from_numpy(from_llama(self.hparams, wanted, self._read(wanted)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._wanted)

    def __len__(self) -> int:
        return len(self._wanted)

    def kind(self, name: str) -> str:
        """The type of a tensor in the file, as llama.cpp calls it; of vectors it is none."""
        wanted = self._wanted[name]
        return str(self._find(wanted).tensor_type.name) if len(wanted.shape) == 2 else ""

    def _find(self, wanted: LlamaTensor) -> Any:
        """A tensor as the file has it, of the shape wanted but for the rows of extra ids."""
        stored = self._stored.get(wanted.name)
        shape = () if stored is None else tuple(map(int, reversed(stored.shape)))
        rows = wanted.shape[0]
        is_table = wanted.source in TABLES
        fits = shape[1:] == wanted.shape[1:] and (
            shape[:1] == (rows,) or (is_table and shape and shape[0] > rows)
        )
        if stored is None or not fits:
            raise CheckpointError(
                f"{str(self._file)!r}: {wanted.name} "
                + ("is missing" if stored is None else f"has shape {list(shape)}")
                + f"; it should be {list(wanted.shape)}: the file is broken, copy it again"
            )
        return stored

    def _read(self, wanted: LlamaTensor) -> NDArray[np.float32]:
        """The numbers of a tensor, without the rows of extra ids."""
        stored = self._find(wanted)
        data = np.asarray(stored.data)[: wanted.shape[0]]
        try:
            numbers = self._gguf.quants.dequantize(data, stored.tensor_type)
        except NotImplementedError as error:
            raise CheckpointError(
                f"{str(self._file)!r}: {wanted.name} is {stored.tensor_type.name}, a type that no"
                " weight has; convert only files that `neox-ja convert` wrote"
            ) from error
        return np.array(numbers, dtype=np.float32)  # the file is mapped and may not be written to


def _allocate(tensors: _Tensors, names: list[str], is_called_half: bool) -> BitAllocation:
    """In how many bits each tensor was stored.

    A GGUF file has vectors in 32 bits, whatever they were: they are taken for what matrices are.
    """
    kinds = {name: kind for name in names if (kind := tensors.kind(name))}
    allocation = dict.fromkeys(names, 32)
    if is_called_half or set(kinds.values()) == {"BF16"}:
        for group in (kinds.keys(), allocation.keys() - kinds.keys()):
            if not all(_is_bfloat16(tensors[name]) for name in group):
                break
            allocation.update(dict.fromkeys(group, 16))
    return allocation


@contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    """Let errors name the file, in which the files that they speak of stand."""
    try:
        yield
    except NeoXJapaneseError as error:
        raise CheckpointError(f"in {str(file)!r}: {error}") from error


def _open(file: Path) -> Any:
    """A reader of a file that may be cut off, or hostile."""
    gguf = import_gguf()

    class Reader(gguf.GGUFReader):  # type: ignore[name-defined, misc]
        """One that does not read on, item by item, behind the end of the file."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *rest: Any, **more: Any) -> Any:
            if int(offset) + int(count) * np.dtype(dtype).itemsize > len(self.data):
                raise ValueError("it ends too early")
            return super()._get(offset, dtype, count, *rest, **more)

    check_regular(file)
    try:
        return Reader(file)
    except OSError as error:
        raise CheckpointError(f"cannot read {str(file)!r}: {error.strerror or error}") from error
    except Exception as error:  # a broken file can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{str(file)!r} is no GGUF file, or broken: {reason}") from error


def _contents(reader: Any, file: Path, key: str) -> Any:
    field = reader.get_field(key)
    try:
        return None if field is None else field.contents()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{str(file)!r}: {key} is not UTF-8; copy it again") from error


def _json(file: Path, text: str) -> dict[str, Any]:
    try:
        config = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(file)!r}: its config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{str(file)!r}: its config.json must hold a JSON object")
    return config


def _is_bfloat16(tensor: torch.Tensor) -> bool:
    """Whether float32 numbers fit in bfloat16."""
    import torch

    return bool((tensor.bfloat16().float() == tensor).all() and torch.isfinite(tensor).all())
