"""Looks at a model directory before anything in it is loaded.

The files of a stranger may be made to read other files, to wait for ever, to run code or to use up
the memory. transformers never unpickles objects, and safetensors checks that tensors lie inside
their file and apart from each other; the rest is refused here. Links are followed, see
`json_files`.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedConfig

from gpt_neox_japanese.errors import CheckpointError
from gpt_neox_japanese.files.json_files import read_index, read_object
from gpt_neox_japanese.files.regular_files import check_regular

__all__ = ["check_directory", "loading_errors"]

# What the loader opens; anything else beside it does no harm.
_LOADED = {".bin", ".json", ".safetensors"}


def check_directory(directory: Path, config: PreTrainedConfig | None = None) -> None:
    """Refuse a model directory that holds a trap.

    Args:
        directory: The directory that holds `config.json` and the weights.
        config: What is loaded instead of `config.json`, if it is.

    Raises:
        CheckpointError: A file is a device or a pipe; an index names a file that does not lie
            beside it; or the weights are far too few for the configuration.
    """
    files = [path for path in sorted(directory.iterdir()) if path.suffix in _LOADED]
    # Loading says itself that a link leads nowhere, if it needs the file.
    files = [path for path in files if path.exists() and not path.is_dir()]
    for path in files:
        check_regular(path)
    for path in files:
        if path.name.endswith(".index.json"):
            read_index(path)
    weights = [path for path in files if path.suffix in {".bin", ".safetensors"}]
    if weights and not (directory / "adapter_config.json").exists():
        fields = config.to_dict() if config else _config_in(directory)
        _check_size(directory, fields, sum(path.stat().st_size for path in weights))


@contextmanager
def loading_errors(source: str) -> Iterator[None]:
    """Turn what broken weights raise into a `CheckpointError`.

    Args:
        source: The directory or Hub id that is loaded.

    Yields:
        Nothing, once: the weights are loaded inside.

    Raises:
        CheckpointError: A .bin file holds something else than tensors, or a .safetensors file is
            broken.
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


def _check_size(directory: Path, config: dict[str, Any], weight_bytes: int) -> None:
    names = ("num_hidden_layers", "hidden_size", "vocab_size", "intermediate_multiple_size")
    layers, hidden, vocabulary, multiple = (config.get(name) for name in names)
    if not (isinstance(layers, int) and isinstance(hidden, int) and isinstance(vocabulary, int)):
        return  # the configuration itself says what is wrong with it
    multiple = multiple if isinstance(multiple, int) else 4
    parameters = vocabulary * hidden + layers * (4 + 2 * multiple) * hidden**2
    # No format takes less than a bit for each.
    if weight_bytes < parameters // 8:
        raise CheckpointError(
            f"{str(directory)!r}: config.json describes {parameters:,} parameters, but the weight "
            f"files have {weight_bytes:,} bytes; they do not belong together"
        )


def _config_in(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    return read_object(path) if path.exists() else {}
