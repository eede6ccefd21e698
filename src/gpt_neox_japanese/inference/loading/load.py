"""From a checkpoint to an engine: which network runs it, and in which numbers."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from gpt_neox_japanese.checks import check_bool, check_integer, check_text
from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.tensor_files import read_weights
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.inference.loading.hparams import HParams
from gpt_neox_japanese.inference.loading.weight_map import TABLES, Weights, map_weights
from gpt_neox_japanese.inference.network import Network
from gpt_neox_japanese.inference.scheduler.engine import Engine
from gpt_neox_japanese.quantization.checkpoint_tensors import check_tensors
from gpt_neox_japanese.quantization.int4 import SCALE

if TYPE_CHECKING:
    import torch

__all__ = ["default_slots", "load_engine", "load_network"]

_SLOTS, _SLOTS_OF_SMALL_MODEL = 8, 32
_BYTES_OF_SMALL_MODEL = 2 << 30  # that keys and values of that many texts take at most
_MAX_SLOTS = 4096
_MAX_THREADS = 1024
_DTYPES = ("float32", "bfloat16", "float16")


def load_engine(
    checkpoint: Checkpoint,
    *,
    stop_ids: Collection[int],
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    slots: int | None = None,
    threads: int | None = None,
    prompt_lookup: bool = False,
) -> Engine:
    """The engine of a checkpoint; see `load_network` and `Engine`."""
    check_bool("prompt_lookup", prompt_lookup, CheckpointError)
    network = load_network(checkpoint, dtype=dtype, device=device, slots=slots, threads=threads)
    return Engine(network, stop_ids=stop_ids, prompt_lookup=prompt_lookup)


def load_network(
    checkpoint: Checkpoint,
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    slots: int | None = None,
    threads: int | None = None,
) -> Network:
    """The network of a checkpoint.

    Args:
        checkpoint: Whose weights are read.
        dtype: "float32" (None), "bfloat16", or on a GPU "float16"; also as torch's dtype. On a CPU
            float32 leaves weights that are stored in bfloat16 as they are, since that changes no
            result, and bfloat16 rounds weights and cache; the arithmetic is float32 in both cases.
            Quantised weights stay quantised.
        device: Where it runs, as torch names it.
        slots: Texts that are written at once; the others wait. None for `default_slots`.
        threads: Of a CPU; None for one on each core.

    Raises:
        CheckpointError: A weight is missing or broken, or dtype or device cannot be used.
    """
    name = str(dtype or "float32").removeprefix("torch.")
    if name not in _DTYPES:
        raise CheckpointError(f"dtype {name!r} cannot be used; choose one of {', '.join(_DTYPES)}")
    if slots is not None:
        check_integer("slots", slots, CheckpointError, minimum=1, maximum=_MAX_SLOTS)
    if threads is not None:
        check_integer("threads", threads, CheckpointError, minimum=1, maximum=_MAX_THREADS)
    check_text("device", device, CheckpointError)
    # Rows that only pad the model are left out: they are never scored, so never chosen.
    hparams = replace(HParams.from_config(checkpoint.config), vocab_size=checkpoint.num_ids)
    slots = slots or default_slots(hparams, bytes_per_value=4 if name == "float32" else 2)
    if device != "cpu":
        from gpt_neox_japanese.inference.torch.network import TensorNetwork, check_device

        check_device(device)
        return TensorNetwork(
            hparams, _weights(checkpoint, hparams), dtype=name, device=device, slots=slots
        )
    if name == "float16":
        raise CheckpointError(
            "dtype 'float16' is for GPUs, where it is fast; on a CPU choose float32 or bfloat16"
        )
    from gpt_neox_japanese.inference.cpu.network import CompiledNetwork

    half = name == "bfloat16"
    weights = _weights(checkpoint, hparams, bfloat16=half)
    return CompiledNetwork(hparams, weights, slots=slots, bfloat16_cache=half, threads=threads)


def default_slots(hparams: HParams, bytes_per_value: int) -> int:
    """How many texts are written at once where nobody says.

    A slot that no text uses costs nothing, except on Windows, which charges a program for memory
    when it is reserved. A small model's step takes more texts in hardly more time.

    Args:
        hparams: Sizes and constants.
        bytes_per_value: Of a key or a value, 2 or 4.
    """
    values = 2 * hparams.num_hidden_layers * hparams.max_position_embeddings * hparams.hidden_size
    fitting = min(_SLOTS_OF_SMALL_MODEL, _BYTES_OF_SMALL_MODEL // (values * bytes_per_value))
    return max(1 if sys.platform == "win32" else _SLOTS, fitting)


def _weights(checkpoint: Checkpoint, hparams: HParams, *, bfloat16: bool = False) -> Weights:
    tensors = read_weights(checkpoint.directory)
    check_tensors(checkpoint.config, tensors, str(checkpoint.directory), language_model=True)
    rows = checkpoint.config["vocab_size"]
    for name in (f"{table}{part}" for table in TABLES for part in ("", SCALE)):
        if name in tensors and tensors[name].shape[:1] == (rows,):
            tensors[name] = tensors[name][: hparams.vocab_size]
    return map_weights(hparams, tensors, bfloat16=bfloat16)
