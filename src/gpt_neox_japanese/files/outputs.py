"""What `--output` names: checked before the work begins, filled at one moment when it is done.

This is about the place that a person asked for; how a single file or directory is replaced so that
a crash leaves no half of it is `atomic`.

A result grows in a hidden directory and is then given its place by renaming. That directory is
beside the result where there is none yet. A directory that is there already, and empty, may be
`.`, a link or a mounted disk, which cannot be replaced: there it is inside. One run at a time has
it, by a lock that is beside it, and nothing that came to the output meanwhile is overwritten.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gpt_neox_japanese.errors import OutputError
from gpt_neox_japanese.files.locks import locked_file

__all__ = [
    "MARKER",
    "check_output",
    "check_writable",
    "growing",
    "locked",
    "make_partial",
    "partial_directory",
    "publish",
    "publish_file",
    "target",
]

# Tells a directory of ours, which may be removed, from one that only has such a name.
MARKER = ".unfinished-result"

# Ends the name of a lock's file; a killed run leaves it, and nobody needs to know of it.
_LOCK = ".lock"

# What the caller can do nothing about by naming another place on the same disk.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def check_output(
    output: Path, remedy: str = "choose another or remove it", *, partial: Path | None = None
) -> None:
    """Make sure that a new directory can be made at `output`, or an empty one filled.

    Args:
        output: What `--output` names.
        remedy: What to do about a directory that is not empty.
        partial: Where the result grows, if that does not count as something in it.

    Raises:
        OutputError: There is a file, a directory that is not empty, or no way to write.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"--output {output} exists and is a file; {remedy}")
    check_writable(output)
    try:
        names = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    except OSError as error:
        raise OutputError(f"--output {output} cannot be read: {error.strerror}") from error
    names = {name for name in names if not (name.startswith(".") and name.endswith(_LOCK))}
    if names - ({partial.name} if partial else set()):
        raise OutputError(f"--output {output} exists and is not empty; {remedy}")


def check_writable(output: Path) -> None:
    """Make sure that something can be written at `output`, without making anything.

    Args:
        output: What `--output` names.

    Raises:
        OutputError: A part of the path is a file, or may not be written into.
    """
    folder = target(output)
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise OutputError(
            f"--output {output} cannot be made, because {folder} is no directory; choose another"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"--output {output} cannot be written, because {folder} may not be written into; "
            "choose another, or change its permissions"
        )


def partial_directory(output: Path, work: str) -> Path:
    """The hidden directory in which a result grows; it may not be there yet.

    Args:
        output: What `--output` names.
        work: The kind of work, which is part of the name.

    Returns:
        `.NAME.WORK` beside the output, or `.WORK` inside it where it is there already.
    """
    real = target(output)
    beside = real.with_name(f".{real.name}.{work}") if real.name else None
    if beside is not None and (beside.exists() or not real.is_dir()):
        return beside
    return real / f".{work}"


@contextmanager
def locked(partial: Path, output: object) -> Iterator[None]:
    """Keep other runs from the directory in which a result grows.

    Args:
        partial: What `partial_directory` gave.
        output: What `--output` names, for the message.

    Raises:
        OutputError: Another run has it, or nothing can be made there.
        OSError: The disk is full or fails.
    """
    with ExitStack() as lock:
        with _refusals(output):
            partial.parent.mkdir(parents=True, exist_ok=True)
            is_free = lock.enter_context(locked_file(partial.with_name(partial.name + _LOCK)))
        if not is_free:
            raise OutputError(
                f"another run is writing --output {output}; wait for it, or choose another"
            )
        yield


@contextmanager
def _refusals(output: object) -> Iterator[None]:
    """Tell a place that cannot be written from a disk that fails."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise
        raise OutputError(
            f"--output {output} cannot be made: {error.strerror}; choose another"
        ) from error


def make_partial(partial: Path, output: object) -> None:
    """Make the directory in which a result grows, in the place of one that a killed run left.

    Args:
        partial: What `partial_directory` gave; this run has `locked` it.
        output: What `--output` names, for the message.

    Raises:
        OutputError: That is not possible there, or something of that name is not ours.
        OSError: The disk is full or fails.
    """
    if os.path.lexists(partial):
        if not _is_ours(partial):
            raise OutputError(
                f"{partial} is in the way, and no interrupted run left it; give it another name, "
                f"remove it, or choose another --output than {output}"
            )
        shutil.rmtree(partial)
    with _refusals(output):
        partial.mkdir(parents=True)
        (partial / MARKER).touch()


def _is_ours(partial: Path) -> bool:
    """Whether `make_partial` made a directory, even if it was killed in the middle."""
    if partial.is_symlink() or not partial.is_dir():
        return False
    return (partial / MARKER).is_file() or not any(partial.iterdir())


@contextmanager
def growing(partial: Path, output: Path, last: str, *, is_file: bool = False) -> Iterator[None]:
    """Let a result grow in its hidden directory, and move it to its place at the end of the block.

    An exception, an interrupt too, leaves nothing of it, unless it was finished: then it stays in
    the hidden directory, and no later run removes that.

    Args:
        partial: What `partial_directory` gave.
        output: What `--output` names.
        last: The file by which others know that a directory is complete, or the result itself.
        is_file: Whether the result is that file alone.

    Raises:
        OutputError: The directory cannot be made, something of its name is not ours, another run
            has it, or something has come to the output meanwhile.
        OSError: The disk is full or fails.
    """
    with locked(partial, output):
        make_partial(partial, output)
        try:
            yield
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if is_file:
            (partial / MARKER).unlink()
            publish_file(partial / last, output)
            shutil.rmtree(partial)
        else:
            publish(partial, output, last)


def publish(partial: Path, output: Path, last: str) -> None:
    """Move a complete result to its place.

    Args:
        partial: What `partial_directory` gave; it is gone afterwards.
        output: A directory that was empty or did not exist.
        last: The file by which others know that a directory is complete.

    Raises:
        OutputError: Something has come in its way meanwhile.
        OSError: That is not possible.
    """
    (partial / MARKER).unlink(missing_ok=True)  # what is complete nobody removes unasked
    real = target(output)
    if came := _in_the_way(partial, real):
        raise _refusal(output, came[0], partial)
    if not real.is_dir():
        partial.rename(real)
        return
    for file in sorted(partial.iterdir(), key=lambda file: (file.name == last, file.name)):
        file.rename(real / file.name)
    partial.rmdir()


def _in_the_way(partial: Path, real: Path) -> list[Path]:
    """What has come where a result is to go: of a directory that was there, only its names."""
    if not real.is_dir():
        return [real] if os.path.lexists(real) else []
    if partial.parent != real:
        return sorted(real.iterdir())
    return [place for file in partial.iterdir() if os.path.lexists(place := real / file.name)]


def _refusal(output: Path, came: Path, kept: Path) -> OutputError:
    return OutputError(
        f"--output {output}: {came} came while the result was made, and is not replaced; the "
        f"result is whole in {kept}: move it from there to another place"
    )


def publish_file(file: Path, output: Path) -> None:
    """Move a complete file to its place.

    Args:
        file: On the same file system as `output`.
        output: Where it goes, and nothing is; links are followed.

    Raises:
        OutputError: Something has come to the output meanwhile.
        OSError: That is not possible.
    """
    place = target(output)
    try:
        os.link(file, place)  # replaces nothing, as a renaming may
    except OSError as error:  # also where the file system has no links
        if os.path.lexists(place):
            raise _refusal(output, place, file) from error
        file.rename(place)
    else:
        file.unlink()


def target(output: Path) -> Path:
    """The place that `output` names, whatever links and `..` there are in it.

    Args:
        output: Any path; nothing needs to be there.
    """
    return Path(os.path.realpath(output))
