"""Looks at a model directory before transformers loads anything in it.

The files of a stranger may be made to read other files, to wait for ever, to run code or to use up
the memory. They go through the same checks here as where the engine and `convert` read them. What
transformers then still stumbles over is told as ours. Links are followed, see `json_files`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedConfig

from gpt_neox_japanese.checks import check_integer, one_line, short_repr
from gpt_neox_japanese.errors import CheckpointError, NeoXJapaneseError
from gpt_neox_japanese.files.json_files import read_index, read_object
from gpt_neox_japanese.files.model_config import read_config, read_generation_config, sizes
from gpt_neox_japanese.files.model_directory import HubKwargs, fetch_weights, is_hub_id
from gpt_neox_japanese.files.regular_files import check_regular
from gpt_neox_japanese.files.tensor_files import read_weights
from gpt_neox_japanese.quantization.checkpoint_tensors import check_tensors
from gpt_neox_japanese.quantization.formats import METHOD

__all__ = [
    "check_adapter_config",
    "check_directory",
    "check_files",
    "hub_kwargs",
    "loading_errors",
]

# What the loader opens; anything else beside it does no harm.
_LOADED = {".bin", ".json", ".safetensors"}
# Fields of an adapter_config.json that are regular expressions, or may be.
_PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")
_ANY = re.compile(r"(?:\.|\\d|\[[\w-]+\])[*+]")
_NAMES = re.compile(r"(?:[\w.\\^$|()-]|\[[\w-]+\])*")
_MAX_RANK = 2**14

# With these arguments transformers reads other files or names, or takes what does not fit.
_OTHER_WEIGHTS = (
    "state_dict",
    "variant",
    "use_safetensors",
    "gguf_file",
    "key_mapping",
    "ignore_mismatched_sizes",
    "quantization_config",
)


def check_directory(
    directory: Path, config: PreTrainedConfig | None = None, options: Mapping[str, Any] = {}
) -> None:
    """Refuse a model directory that holds a trap, or weights that are not those of its config.json.

    Args:
        directory: The directory that holds `config.json` and the weights, or `adapter_config.json`.
        config: What is loaded instead of `config.json`, if it is.
        options: The other arguments of `from_pretrained`.

    Raises:
        CheckpointError: A file is missing or broken, is a device or a pipe, does not fit the
            others, or names a file that does not lie beside it.
    """
    files = check_files(directory)
    read_generation_config(directory)
    if directory / "adapter_config.json" in files:
        _check_adapter(directory / "adapter_config.json", config, options)
        return
    given = config.to_dict() if config else read_config(directory)
    weights = [path for path in files if path.suffix in {".bin", ".safetensors"}]
    _check_size(directory, given, sum(path.stat().st_size for path in weights))
    if not any(options.get(name) is not None for name in _OTHER_WEIGHTS):
        _check_weights(directory, given)


def check_adapter_config(path: Path) -> dict[str, Any]:
    """Refuse an adapter_config.json with which PEFT would search, or take memory, without bound.

    Args:
        path: The file.

    Returns:
        What it says.

    Raises:
        CheckpointError: It is broken, has a rank of no adapter, or a pattern that is not plain.
    """
    config = read_object(path)
    ranks = config.get("rank_pattern")
    for rank in (config.get("r", 1), *(ranks.values() if isinstance(ranks, dict) else ())):
        if rank is not None:
            check_integer(f"{str(path)!r}: r", rank, CheckpointError, minimum=0, maximum=_MAX_RANK)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and re.search(r"_niter_\d{3}", start):
        raise CheckpointError(
            f"{str(path)!r}: init_lora_weights is {short_repr(start)}, so many rounds of work for"
            " numbers that the file has; make it true"
        )
    for name in _PATTERNS:
        value = config.get(name)
        patterns = value if isinstance(value, list | dict) else [value]
        for pattern in patterns:
            if isinstance(pattern, str) and not _is_plain(pattern):
                raise CheckpointError(
                    f"{str(path)!r}: {name} has the pattern {short_repr(pattern)}, which could be"
                    " searched for without end; write the modules' names in a list"
                )
    return config


def _is_plain(pattern: str) -> bool:
    """Whether a regular expression is names, a few `.*` or `[0-9]+`, and a few groups of names."""
    rest, repeats = _ANY.subn("", pattern)
    return (
        len(pattern) <= 1000
        and repeats <= 3
        and bool(_NAMES.fullmatch(rest))
        and rest.count("(") <= 3
    )


def check_files(directory: Path) -> list[Path]:
    """Refuse a directory with a device, a pipe or a folder in the place of a file.

    Args:
        directory: Of a model or an adapter.

    Returns:
        Its files that a loader may open.

    Raises:
        CheckpointError: A file is none, or an index names one that does not lie beside it.
    """
    files = [path for path in sorted(directory.iterdir()) if path.suffix in _LOADED]
    # Loading says itself that a link leads nowhere, if it needs the file.
    files = [path for path in files if path.exists()]
    for path in files:
        check_regular(path)
        if path.name.endswith(".index.json"):
            read_index(path)
    return files


def hub_kwargs(options: Mapping[str, Any]) -> HubKwargs:
    """Those arguments of `from_pretrained` that say which files on the Hub are meant.

    Args:
        options: All of them.
    """
    named = {name: options[name] for name in HubKwargs.__annotations__ if name in options}
    return cast(HubKwargs, named)


@contextmanager
def loading_errors(source: str) -> Iterator[None]:
    """Turn what transformers stumbles over in a directory's files into a `CheckpointError`.

    Args:
        source: The directory that is loaded.

    Yields:
        Nothing, once: the model is loaded inside.

    Raises:
        CheckpointError: A file has something that only transformers found.
    """
    try:
        yield
    except (NeoXJapaneseError, ImportError, MemoryError):
        raise  # no file's fault
    except Exception as error:
        raise CheckpointError(
            f"{source!r} cannot be loaded: {type(error).__name__}: {one_line(error)}"
        ) from error


def _check_adapter(path: Path, config: PreTrainedConfig | None, options: Mapping[str, Any]) -> None:
    """An adapter's base is loaded from where it says, as if the caller had named it."""
    base = check_adapter_config(path).get("base_model_name_or_path")
    if not isinstance(base, str) or not base.isprintable() or not base:
        raise CheckpointError(
            f"{str(path)!r}: base_model_name_or_path is {short_repr(base)}; it must name the model"
            " that was adapted: its directory or Hub id"
        )
    directory = Path(base)
    if not os.path.isdir(base) and is_hub_id(base):
        directory = fetch_weights(base, **hub_kwargs(options))
    if not os.path.isdir(directory):
        return  # loading says so itself
    if (directory / "adapter_config.json").exists():
        raise CheckpointError(
            f"{str(path)!r}: base_model_name_or_path names {base!r}, an adapter; it must name a"
            " whole model"
        )
    check_directory(directory, config, options)


def _check_weights(directory: Path, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if isinstance(quantization, Mapping) and quantization.get("quant_method") != METHOD:
        return  # of another library, which transformers asks
    check_tensors(config, read_weights(directory), str(directory))


def _check_size(directory: Path, config: Mapping[str, Any], weight_bytes: int) -> None:
    size = sizes(config)
    layer = (4 + 2 * size["intermediate_multiple_size"]) * size["hidden_size"] ** 2
    parameters = size["vocab_size"] * size["hidden_size"] + size["num_hidden_layers"] * layer
    # No format takes less than a bit for each.
    if weight_bytes < parameters // 8:
        raise CheckpointError(
            f"{str(directory)!r}: config.json describes {parameters:,} parameters, but the weight "
            f"files have {weight_bytes:,} bytes; they do not belong together"
        )
