"""Publishing a model on the Hugging Face Hub: what is needed to use it, and a page about it.

No code goes with it (`auto_map`): transformers has this architecture, so nobody has to run a
stranger's code to read the model, and whoever wants ours installs a package of a fixed version.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from gpt_neox_japanese.errors import ArgumentError, CheckpointError, RemoteError
from gpt_neox_japanese.files.model_config import refuse_adapter
from gpt_neox_japanese.files.model_directory import MODEL_FILES, TOKENIZER_FILES
from gpt_neox_japanese.files.remote import without_secrets
from gpt_neox_japanese.files.run_records import PICTURE
from gpt_neox_japanese.files.tensor_files import SAFETENSORS, read_weights, weight_files
from gpt_neox_japanese.inference.loading.checkpoint import Checkpoint
from gpt_neox_japanese.quantization.checkpoint_tensors import check_tensors
from gpt_neox_japanese.training.report.model_card import model_card, run_of

__all__ = ["Publication", "publication", "publish"]

PAGE = "README.md"

_WEIGHTS = "model*.safetensors"

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*", re.ASCII)


@dataclass(frozen=True)
class Publication:
    """What goes to the Hub.

    Attributes:
        repository: Its id there.
        files: Name there → file here.
        page: The text of README.md.
    """

    repository: str
    files: dict[str, Path]
    page: str


def publication(
    directory: Path, repository: str, *, license_id: str | None = None, data: str | None = None
) -> Publication:
    """Put together what goes to the Hub; nothing is sent.

    Args:
        directory: Of a model, such as a finished run. A `README.md` in it is taken as it is.
        repository: "owner/name".
        license_id: The licence, by the Hub's names; needed where there is no README.md, and only
            there.
        data: What the model learned from, in the author's words; for a page that is made, too.

    Returns:
        Files and page.

    Raises:
        ArgumentError: The repository or the licence is no such name, or the licence is missing, or
            is given beside a README.md.
        CheckpointError: The directory is no model that others can load: adapters, a pickle, files
            that are missing, broken or do not fit together; or its README.md is not UTF-8.
        VocabularyError: The vocabulary is missing or broken.
    """
    if not _REPOSITORY.fullmatch(repository):
        raise ArgumentError(f"{repository!r} is no repository; write owner/name")
    if license_id is not None and not _LICENSE.fullmatch(license_id):
        raise ArgumentError(f"{license_id!r} is no licence; write its name on the Hub: apache-2.0")
    files = _model_files(directory)
    run = run_of(directory)
    if run is not None and (run / PICTURE).is_file():
        files[PICTURE] = run / PICTURE
    if (directory / PAGE).is_file():
        if license_id is not None or data is not None:
            raise ArgumentError(
                f"{directory / PAGE} is the page, and is taken as it is; write there what --license"
                " and --data-text are to say, and leave them out, or remove it"
            )
        return Publication(repository, files, _page_of(directory / PAGE))
    if license_id is None:
        raise ArgumentError(
            "--license is missing; name the licence that the model has, such as apache-2.0"
        )
    page = model_card(directory, repository, license_id=license_id, data=data)
    return Publication(repository, files, page)


def _model_files(directory: Path) -> dict[str, Path]:
    """What makes a model, by name, if all of it is there and fits together."""
    refuse_adapter(directory)
    checkpoint = Checkpoint.open(str(directory.resolve()))
    weights = _names_of_weights(directory)
    check_tensors(checkpoint.config, read_weights(directory), str(directory))
    names = ["config.json", "generation_config.json", *TOKENIZER_FILES, *weights]
    files = {name: directory / name for name in names if os.path.lexists(directory / name)}
    for file in files.values():
        if not file.is_file():
            raise CheckpointError(f"{file} is no file, or a link to none; put the file there")
    return files


def _names_of_weights(directory: Path) -> list[str]:
    form, files = weight_files(directory)
    if form != SAFETENSORS:
        raise CheckpointError(
            f"{directory} has no {SAFETENSORS}, and a pickle is not published; make one with"
            " `neox-ja convert --to bf16`"
        )
    names = [file.name for file in files]
    if names == [SAFETENSORS]:
        return names
    index = f"{SAFETENSORS}.index.json"
    for name in names:
        if not fnmatchcase(name, _WEIGHTS):
            raise CheckpointError(
                f"{directory / index} names the file {name!r}, and on the Hub only {_WEIGHTS} is"
                " looked for; rename it, and there too"
            )
    return [index, *names]


def _page_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8; save it as UTF-8") from error


def publish(what: Publication, *, private: bool = False) -> str:
    """Send a model to the Hub, as one commit to a repository that is made if need be.

    Where an older model is there, the commit removes those of its files that this one lacks:
    readers would take them for this one's.

    The address of the Hub and the token are those of huggingface_hub: `HF_ENDPOINT`, `HF_TOKEN`, or
    what `hf auth login` keeps.

    Args:
        what: Of `publication`.
        private: Whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        RemoteError: The Hub does not answer or refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    added = [CommitOperationAdd(name, str(file)) for name, file in what.files.items()]
    added.append(CommitOperationAdd(PAGE, what.page.encode()))
    api = HfApi()
    try:
        api.create_repo(what.repository, private=private, exist_ok=True)
        there = api.list_repo_files(what.repository)
        removed = [
            CommitOperationDelete(name)
            for name in there
            if _is_of_a_model(name) and name not in what.files
        ]
        commit = api.create_commit(
            what.repository, [*added, *removed], commit_message="The model and its page"
        )
    except Exception as error:  # of HTTP, of the Hub, of its page's fields
        reason = without_secrets(" ".join(str(error).split()))
        raise RemoteError(
            f"{what.repository} cannot be published: {reason}; is there a token that may write,"
            " of `hf auth login`?"
        ) from None
    return str(commit.commit_url)


def _is_of_a_model(name: str) -> bool:
    return "/" not in name and any(fnmatchcase(name, pattern) for pattern in MODEL_FILES)
