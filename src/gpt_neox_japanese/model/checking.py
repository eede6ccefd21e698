"""Looks at a model directory before anything in it is loaded.

A directory from a stranger may be made to read other files, to wait for ever, to run code or to
use up the memory. transformers never unpickles objects, and safetensors checks that tensors lie
inside their file and apart from each other; the rest is refused here.
"""

from __future__ import annotations

import pickle
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.json_files import read_object

__all__ = ["check_directory", "explained_errors"]

# What the loader opens; anything else beside it does no harm.
_LOADED = {".bin", ".json", ".safetensors"}


def check_directory(directory: Path, config: PreTrainedConfig | None = None) -> None:
    """Refuse a model directory that holds a trap.

    Args:
        directory: The directory that holds `config.json` and the weights.
        config: What is loaded instead of `config.json`, if it is.

    Raises:
        CheckpointError: A file is a device, a pipe, or a link that leads out of the directory; an
            index names a file outside; or the weights are far too few for the configuration.
    """
    files = [path for path in sorted(directory.iterdir()) if path.suffix in _LOADED]
    for path in files:
        _check_file(path)
    for path in files:
        if path.name.endswith(".index.json"):
            _check_index(path)
    weights = [path for path in files if path.suffix in {".bin", ".safetensors"}]
    if weights and not (directory / "adapter_config.json").exists():
        described = config.to_dict() if config else _config_in(directory)
        _check_size(directory, described, sum(path.stat().st_size for path in weights))


@contextmanager
def explained_errors(source: str) -> Iterator[None]:
    """Turn what broken weights raise into a `CheckpointError`.

    Args:
        source: The directory or Hub id that is loaded.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{source!r}: a .bin file of the weights holds something else than tensors, and is not "
            "loaded because it could run any program; ask its maker for model.safetensors"
        ) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{source!r}: a .safetensors file is broken ({error}); copy or download it again"
        ) from error


def _check_file(path: Path) -> None:
    inside = path.parent.resolve()
    target = path.resolve()
    # The Hub's cache keeps files in models--…/blobs and links to them from …/snapshots/REVISION.
    blobs = inside.parent.parent / "blobs" if inside.parent.name == "snapshots" else inside
    if not target.is_relative_to(inside) and target.parent != blobs:
        raise CheckpointError(
            f"{str(path)!r} is a link that leads out of its directory, to {str(target)!r}; put the "
            "file itself there"
        )
    if path.exists() and not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise CheckpointError(f"{str(path)!r} is not a regular file; put a real one there")


def _check_index(path: Path) -> None:
    shards = read_object(path).get("weight_map")
    if not isinstance(shards, dict):
        raise CheckpointError(f"{str(path)!r} has no weight_map; copy or download it again")
    for shard in shards.values():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in {"", ".."}:
            raise CheckpointError(
                f"{str(path)!r} names the weight file {shard!r}; weight files must lie beside "
                "their index and be named without a directory"
            )


def _check_size(directory: Path, config: dict[str, Any], weight_bytes: int) -> None:
    names = ("num_hidden_layers", "hidden_size", "vocab_size", "intermediate_multiple_size")
    layers, hidden, vocabulary, multiple = (config.get(name) for name in names)
    if not (isinstance(layers, int) and isinstance(hidden, int) and isinstance(vocabulary, int)):
        return  # the configuration itself says what is wrong with it
    multiple = multiple if isinstance(multiple, int) else 4
    parameters = vocabulary * hidden + layers * (4 + 2 * multiple) * hidden**2
    # No way to store weights takes less than a bit for each.
    if weight_bytes < parameters // 8:
        raise CheckpointError(
            f"{str(directory)!r}: config.json describes {parameters:,} parameters, but the weight "
            f"files have {weight_bytes:,} bytes; they do not belong together"
        )


def _config_in(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    return read_object(path) if path.exists() else {}
