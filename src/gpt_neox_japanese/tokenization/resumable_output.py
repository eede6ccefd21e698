"""Output that can be resumed: hidden until it is complete, and not lost when the run is killed.

While a run writes `NAME`, its files lie in the directory `.NAME.partial` beside it (or `.partial`
inside, if `NAME` is an empty directory that is there already), together with `progress.json`: how
many blocks of the corpus are done, what was counted, and how long each file was then. A run that
continues cuts every file back to that length and goes on with the next block, so the result is the
one of a run that was never interrupted.

A result that goes to a URL grows on this machine, in a place that belongs to the URL, and is copied
when it is complete; if that fails, a run that continues copies it again.

What a stranger left there can at most be refused: the journal names files of this directory that
such a run writes, and nothing is cut, removed or written that is a link or of another name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Any, Self

from gpt_neox_japanese.checks import is_count
from gpt_neox_japanese.errors import DataError, OutputError
from gpt_neox_japanese.files import outputs
from gpt_neox_japanese.files.atomic import write_file
from gpt_neox_japanese.files.json_files import read_object
from gpt_neox_japanese.files.regular_files import check_own_file
from gpt_neox_japanese.files.remote import AnyPath, RemotePath
from gpt_neox_japanese.files.remote_copies import check_remote_output, place_of_output, upload

__all__ = ["ResumableOutput"]

JOURNAL = "progress.json"

# What lies in the directory besides parts of the result.
_NEW_JOURNAL = f".{JOURNAL}.new"
_OWN = {JOURNAL, _NEW_JOURNAL, outputs.MARKER}

_SECONDS_BETWEEN_JOURNALS = 10.0


class ResumableOutput:
    """Files that are appended to, block by block, until they are published together.

    A context manager. A block that ends with an exception, Ctrl-C among them, keeps what whole
    blocks of the corpus have given so far, for `resume`.

    Args:
        output: The file or directory to make; it must not exist, or be an empty directory. A
            directory may be elsewhere.
        settings: What the result depends on, as JSON values; a run can only be continued with the
            same ones.
        resume: Continue the run that was interrupted, if there is one.
        names: Matches the name of every file that a run with this result writes.
        last: The file that goes to its place after all others.
        is_file: That one file is the whole result, and `output` its name.

    Attributes:
        blocks: How many blocks are done.
        counts: What was counted in them.

    Raises:
        OutputError: `output` exists, cannot be written, or another run is writing it.
        RemoteError: It is elsewhere, and cannot be written.
        DataError: An interrupted run is in the way, it had other settings, or what it left is
            damaged.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> output = Path(tempfile.mkdtemp()) / "made"
        >>> name = re.compile("ids.bin")
        >>> with ResumableOutput(output, {}, resume=False, names=name, last="ids.bin") as files:
        ...     files.append("ids.bin", bytes([1, 2]))
        ...     files.end_block({"tokens": 2})
        ...     files.publish()
        >>> [file.name for file in output.iterdir()]
        ['ids.bin']
    """

    def __init__(
        self,
        output: AnyPath,
        settings: Mapping[str, Any],
        *,
        resume: bool,
        names: re.Pattern[str],
        last: str,
        is_file: bool = False,
    ) -> None:
        if isinstance(output, RemotePath):
            assert not is_file
            self.directory = place_of_output(output)
        else:
            self.directory = outputs.partial_directory(output, "partial")
            if is_file and output.is_dir():
                raise OutputError(f"--output {output} exists and is a directory; choose another")
            outputs.check_output(output, partial=self.directory)
        self._output, self._last, self._is_file = output, last, is_file
        self._names = names
        self._settings = json.loads(json.dumps(settings))  # as the journal will give them back
        self.blocks = 0
        self.counts: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._open: dict[str, IO[bytes]] = {}
        with ExitStack() as lock:
            lock.enter_context(outputs.locked(self.directory, output))
            resumed = os.path.lexists(self.directory / JOURNAL)
            if resumed:
                self._restore(resume)
            else:
                outputs.make_partial(self.directory, output)
            if isinstance(output, RemotePath):
                self._check_remote(output, resumed)
            self._lock = lock.pop_all()
        self._written = time.monotonic()
        self._safe = self._state()

    def size(self, name: str) -> int:
        """Bytes of a file so far; 0 if it has not been begun.

        Args:
            name: Of the file, in the output directory.

        Returns:
            How many bytes were written.
        """
        return self._sizes.get(name, 0)

    def append(self, name: str, data: bytes) -> None:
        """Append to a file; it is made when it is first named.

        Args:
            name: Of the file, within the output.
            data: What to append.
        """
        if name not in self._open:
            self._open[name] = (self.directory / name).open("ab")
        self._open[name].write(data)
        self._sizes[name] = self.size(name) + len(data)

    def rewrite_start(self, name: str, data: bytes) -> None:
        """Overwrite the beginning of a file; afterwards nothing may be appended to any.

        Args:
            name: Of the file, within the output.
            data: What takes the place of as many bytes.
        """
        self._close()
        with (self.directory / name).open("r+b") as stream:
            stream.write(data)

    def end_block(self, counts: Mapping[str, int]) -> None:
        """Say that everything of one more block has been appended.

        Args:
            counts: Name → what the block adds to it.
        """
        self.blocks += 1
        self.counts.update(counts)
        self._safe = self._state()
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_JOURNALS:
            self._save()

    def discard(self) -> None:
        """Keep nothing for `--resume`, because no run can make use of it."""
        self._safe = {**self._safe, "blocks": 0}

    def publish(self) -> None:
        """Close the files and move them to their place.

        Raises:
            OutputError: Something has come to their place meanwhile.
            OSError: That is not possible.
            RemoteError: Their place is elsewhere, and cannot be written.
        """
        self._close()
        if isinstance(self._output, RemotePath):
            upload(self.directory, self._output, self._last, leave={JOURNAL})
            shutil.rmtree(self.directory)
            return
        if self._is_file:
            outputs.publish_file(self.directory / self._last, self._output)
            shutil.rmtree(self.directory)
            return
        outputs.publish(self.directory, self._output, self._last)
        (self._output / JOURNAL).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._lock:
            if error is not None and self._safe["blocks"]:
                self._save()
                print(
                    f"{self.directory} keeps what is done; continue with --resume", file=sys.stderr
                )
            self._close()
            if error is not None and not self._safe["blocks"]:
                shutil.rmtree(self.directory, ignore_errors=True)

    def _check_remote(self, output: RemotePath, resumed: bool) -> None:
        """Look whether the result can be copied before work goes into it."""
        try:
            check_remote_output(output, self.directory, resumed=resumed)
        except BaseException:
            if not resumed:
                shutil.rmtree(self.directory)
            raise

    def _state(self) -> dict[str, Any]:
        return {"blocks": self.blocks, "counts": dict(self.counts), "sizes": dict(self._sizes)}

    def _save(self) -> None:
        """Write the journal, after everything that it speaks of."""
        self._close()
        journal = {"settings": self._settings, **self._safe}
        text = json.dumps(journal, ensure_ascii=False)
        write_file(self.directory / JOURNAL, text.encode())
        self._written = time.monotonic()

    def _close(self) -> None:
        streams, self._open = self._open, {}
        with ExitStack() as closing:
            for stream in streams.values():
                closing.enter_context(stream)
            for stream in streams.values():
                stream.flush()
                os.fsync(stream.fileno())

    def _restore(self, resume: bool) -> None:
        if not resume:
            raise DataError(
                f"{self.directory} holds an interrupted run; continue it with --resume, or remove "
                "it to start over"
            )
        if self.directory.is_symlink():
            raise DataError(f"{self.directory} is a link, and is not written into; remove it")
        journal = self._read_journal()
        for name, value in self._settings.items():
            if journal["settings"].get(name) != value:
                raise DataError(
                    f"the run in {self.directory} had another {name.replace('_', ' ')}; give the "
                    "same as then, or remove it to start over"
                )
        # All that is there is looked at before anything is changed.
        found = list(self.directory.iterdir())
        for path in found:
            check_own_file(path, DataError)
        unfinished = [path for path in found if path.name not in _OWN]
        for path in unfinished:
            if not self._names.fullmatch(path.name):
                raise DataError(f"{path} is of another name than a run writes; remove it")
        self._sizes = journal["sizes"]
        for name, size in self._sizes.items():
            path = self.directory / name
            if not path.is_file() or path.stat().st_size < size:
                raise DataError(f"{path} has lost data; remove {self.directory} to start over")
        self.blocks = journal["blocks"]
        self.counts.update(journal["counts"])
        (self.directory / _NEW_JOURNAL).unlink(missing_ok=True)
        for path in unfinished:
            if path.name in self._sizes:
                os.truncate(path, self._sizes[path.name])
            else:  # begun after the journal was written: appending would go on behind what is lost
                path.unlink()

    def _read_journal(self) -> dict[str, Any]:
        path = self.directory / JOURNAL
        remedy = f"remove {self.directory} to start over"
        check_own_file(path, DataError)
        journal = read_object(path, DataError, remedy)
        is_whole = (
            isinstance(journal.get("settings"), dict)
            and is_count(journal.get("blocks"))
            and all(_counts_by_name(journal.get(name)) for name in ("counts", "sizes"))
            and all(map(self._names.fullmatch, journal["sizes"]))
        )
        if not is_whole:
            raise DataError(f"{path} is damaged, or no run wrote it; {remedy}")
        return journal


def _counts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_count, value.values()))
