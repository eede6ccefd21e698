"""The one way to a model: a directory on this machine, or a repository on the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TypedDict, Unpack

from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.checks import check_bool, check_text, short_repr
from gpt_neox_japanese.errors import CheckpointError

__all__ = [
    "DEFAULT",
    "MODEL_FILES",
    "TOKENIZER_FILES",
    "HubKwargs",
    "fetch_weights",
    "find_model",
    "find_tokenizer",
    "is_hub_id",
]

DEFAULT = "default"
"""The name of the model that comes with the package."""

TOKENIZER_FILES = (
    "vocab.txt",
    "emoji.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What a tokenizer's directory may hold; only the first two must be there."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)

_ADAPTER_FILES = ("adapter_config.json", "adapter_model*")
_CONFIG_FILES = ("config.json", "generation_config.json")
_SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")

MODEL_FILES = (*TOKENIZER_FILES, *_CONFIG_FILES, *_SAFETENSORS, *_PICKLES, *_ADAPTER_FILES)
"""Patterns of the names that are read of a model's directory or repository."""


class HubKwargs(TypedDict, total=False):
    """Which files of a repository on the Hub are meant; a model on this machine needs none of it.

    Attributes:
        revision: A branch, tag or commit; its main branch if not given.
        cache_dir: Where fetched files are kept; None for the Hub's default.
        token: For private repositories; None for the one that `hf auth login` keeps.
        local_files_only: Fetch nothing, take what was fetched before.
    """

    revision: str | None
    cache_dir: str | os.PathLike[str] | None
    token: str | bool | None
    local_files_only: bool


def find_tokenizer(name: str | os.PathLike[str], **hub: Unpack[HubKwargs]) -> Path:
    """Return a local directory with the files of a tokenizer.

    Args:
        name: See `find_model`.
        **hub: See `HubKwargs`.

    Returns:
        See `find_model`.

    Raises:
        CheckpointError: There is no such directory or repository, or it cannot be reached.
    """
    return _find(name, TOKENIZER_FILES, **hub)


def find_model(name: str | os.PathLike[str], **hub: Unpack[HubKwargs]) -> Path:
    """Return a local directory with the files of a model.

    Of a repository only what is needed is fetched: configuration, tokenizer, and weights as
    safetensors, or in a pickle where there are no safetensors. It stays in the Hub's own cache.

    Args:
        name: A directory; a Hub id such as "abeja/gpt-neox-japanese-2.7b"; or "default" for the
            model that comes with the package; a directory of that name is "./default".
        **hub: See `HubKwargs`.

    Returns:
        `name` itself, the package's own model, or where the Hub's cache keeps the files.

    Raises:
        CheckpointError: There is no such directory or repository, or it cannot be reached.
    """
    directory = _find(name, (*TOKENIZER_FILES, *_CONFIG_FILES, *_SAFETENSORS), **hub)
    if not any(directory.glob(_SAFETENSORS[0])):
        directory = _find(name, (*TOKENIZER_FILES, *_CONFIG_FILES, *_PICKLES), **hub)
    return directory


def _find(name: str | os.PathLike[str], files: Collection[str], **hub: Unpack[HubKwargs]) -> Path:
    _check(hub)
    if not isinstance(name, (str, os.PathLike)) or not str(name):
        raise CheckpointError(f"the model is {short_repr(name)}; give a directory or a Hub id")
    if name == DEFAULT:
        return default_model_directory()
    if os.path.isdir(name):  # False of a name that is too long for a path
        return Path(name)
    if not is_hub_id(name):
        is_model = _CONFIG_FILES[0] in files
        raise CheckpointError(
            f"no {'model' if is_model else 'tokenizer'} directory {str(name)!r}; give a directory"
            f" with {'config.json, model.safetensors, ' * is_model}vocab.txt and emoji.json, or a"
            " Hub id such as 'abeja/gpt-neox-japanese-2.7b'"
        )
    return _fetch(str(name), files, **hub)


def _check(hub: HubKwargs) -> None:
    """Look at every argument, though a model on this machine needs none of them."""
    if unknown := hub.keys() - HubKwargs.__annotations__.keys():
        raise TypeError(f"got an unexpected keyword argument: {', '.join(sorted(unknown))}")
    if (revision := hub.get("revision")) is not None:
        check_text("revision", revision, CheckpointError)
    cache_dir = hub.get("cache_dir")
    if cache_dir is not None and not isinstance(cache_dir, (str, os.PathLike)):
        raise CheckpointError(f"cache_dir is {short_repr(cache_dir)}; it must be a directory")
    token = hub.get("token")
    is_header = isinstance(token, str) and token.isascii()
    if not (is_header or token is None or isinstance(token, bool)):
        raise CheckpointError("token is not what the Hub gives out, such as 'hf_…'")
    check_bool("local_files_only", hub.get("local_files_only", False), CheckpointError)


def fetch_weights(repository: str, subfolder: str = "", **hub: Unpack[HubKwargs]) -> Path:
    """Fetch what transformers reads of a model or an adapter on the Hub.

    Args:
        repository: A Hub id.
        subfolder: Where in the repository the files lie.
        **hub: See `HubKwargs`.

    Returns:
        Where the Hub's cache keeps the repository's files, a directory named as the commit.

    Raises:
        CheckpointError: There is no such repository, or it cannot be reached.
    """
    _check(hub)
    begin = f"{subfolder}/" if subfolder else ""

    def fetch(*files: str) -> Path:
        return _fetch(repository, [begin + file for file in files], **hub)

    directory = fetch(*_CONFIG_FILES, *_ADAPTER_FILES, *_SAFETENSORS)
    if not any((directory / subfolder).glob(_SAFETENSORS[0])):
        directory = fetch(*_CONFIG_FILES, *_ADAPTER_FILES, *_PICKLES)
    return directory


def is_hub_id(name: str | os.PathLike[str]) -> bool:
    """Whether a name that is no directory may be OWNER/NAME on the Hub, which refuses some.

    Args:
        name: What `find_model` takes.

    Returns:
        Whether it may.
    """
    if not (isinstance(name, str) and _HUB_ID.fullmatch(name)) or os.path.exists(name):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:  # its rules are more than ours: no `--` or `..`, no `.git` or dot at the end
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _fetch(repository: str, files: Collection[str], **hub: Unpack[HubKwargs]) -> Path:
    # What of all this is needed is known only now: importing it takes a third of a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    cache_dir = hub.get("cache_dir")
    try:
        return Path(
            snapshot_download(
                repository,
                allow_patterns=list(files),
                revision=hub.get("revision"),
                cache_dir=None if cache_dir is None else Path(cache_dir),
                token=hub.get("token"),
                local_files_only=hub.get("local_files_only", False),
            )
        )
    except GatedRepoError as error:
        reason = "its owner must grant you access; then log in with `hf auth login`"
        raise _not_found(repository, reason) from error
    except RepositoryNotFoundError as error:
        reason = "the Hub knows no repository of that name, or it is private: give a token"
        raise _not_found(repository, reason) from error
    except RevisionNotFoundError as error:
        raise _not_found(repository, f"it has no revision {hub.get('revision')!r}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = "the Hub cannot be reached, and nothing of it was fetched before"
        raise _not_found(repository, reason) from error
    except (HfHubHTTPError, OSError) as error:
        raise _not_found(repository, f"{type(error).__name__}: {error}") from error


def _not_found(repository: str, reason: str) -> CheckpointError:
    message = f"{repository!r} is no directory here, and cannot be had from the Hub: {reason}"
    return CheckpointError(" ".join(message.split()))
