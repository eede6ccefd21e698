"""Files on other machines, named by URLs that fsspec knows: s3://, gs://, hf://, https:// and more.

The one door to them. Credentials come from where each library looks for them (environment,
configuration files), and no message shows those that stand in a URL.

A URL that names nothing is the caller's mistake, and each caller says so in its own words. What a
network or another machine does is nobody's: a `RemoteError`, never taken for a broken document.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeGuard
from urllib.parse import unquote

from gpt_neox_japanese.errors import ArgumentError, RemoteError

__all__ = ["HTTP", "AnyPath", "RemotePath", "as_path", "file_size", "is_url", "without_secrets"]

# Two letters at least, so that a drive of Windows is none.
_URL = re.compile(r"[a-z][a-z0-9+.-]+://.", re.IGNORECASE | re.DOTALL)
HTTP = ("http", "https")
_OF_THE_EXTRA = (*HTTP, "s3", "s3a")

_BUFFER_BYTES = 2**20
_READ_AHEAD_BYTES = 2**23


def is_url(name: object) -> TypeGuard[str]:
    """Whether a name is a URL and no path.

    Args:
        name: What a caller gave.
    """
    return isinstance(name, str) and _URL.match(name) is not None


@dataclass(frozen=True)
class RemotePath:
    """A file or directory on another machine, asked like a `Path`. It can be pickled.

    Attributes:
        url: The URL that was given, which says where the file system is.
        path: Its place in there.
        size: Bytes of a file where they are known.
    """

    url: str
    path: str
    size: int | None = None

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """What a URL names; nothing is asked for yet.

        Args:
            url: A URL.

        Raises:
            ArgumentError: No library is there for it.
        """
        return cls(url, _system(url)[1])

    @property
    def scheme(self) -> str:
        """What stands before `://`, in small letters."""
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part of the path."""
        name = self._bare().rstrip("/").rpartition("/")[2]
        return unquote(name) if self.scheme in HTTP else name

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return Path(self.name).suffix

    def __str__(self) -> str:
        """The URL without credentials, and without a query, which may hold some."""
        path = without_secrets(self._bare()) if self.scheme in HTTP else self.path
        return path if "://" in path else f"{self.scheme}://{path.lstrip('/')}"

    def __truediv__(self, name: str) -> RemotePath:
        """A file in this directory."""
        return RemotePath(self.url, f"{self.path.rstrip('/')}/{name}")

    def kind(self) -> str | None:
        """`file`, `directory`, or None where nothing is.

        Raises:
            RemoteError: Nobody answers, or the size of a file is not told.
        """
        found = self._info()
        if found is None:
            return None
        return "directory" if found["type"] == "directory" else "file"

    def is_file(self) -> bool:
        """Whether it is a file; see `kind`."""
        return self.kind() == "file"

    def measured(self) -> RemotePath:
        """The same file with its size.

        Raises:
            RemoteError: It is not there, nobody answers, or the size is not told.
        """
        found = self._info()
        if found is None:
            raise RemoteError(f"{self} does not exist any more")
        if not isinstance(found.get("size"), int):
            raise RemoteError(f"{self}: its server does not tell its size; download it first")
        return RemotePath(self.url, self.path, found["size"])

    def files_below(self) -> list[RemotePath]:
        """All files of a directory and those below it, in the order of their names.

        Raises:
            RemoteError: Nobody answers.
        """
        with self._explained("listed"):
            found = _system(self.url)[0].find(self.path, detail=True)
        files = [
            RemotePath(self.url, path, int(info["size"]))
            for path, info in found.items()
            if info["type"] == "file" and not path.endswith("/")
        ]
        return sorted(files, key=lambda file: file.path.split("/"))

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Open the file to read it; only what is read is fetched, a few megabytes ahead.

        Args:
            mode: "rb", and nothing else.

        Raises:
            RemoteError: It is not there any more, has another size, or nobody answers; while it is
                read as well.
        """
        assert mode == "rb"
        return io.BufferedReader(_Reader(self), _BUFFER_BYTES)

    def read_text(self, encoding: str) -> str:
        """All of the file.

        Args:
            encoding: Of its text.

        Raises:
            RemoteError: As of `open`.
            UnicodeDecodeError: The text has another encoding.
        """
        with self.open() as stream:
            return stream.read().decode(encoding)

    def put(self, file: Path) -> None:
        """Copy a file of this machine here, and look whether all of it arrived.

        Args:
            file: What to copy; it stays.

        Raises:
            RemoteError: It cannot be written.
        """
        system = _system(self.url)[0]
        with self._explained("written"):
            system.makedirs(self.path.rpartition("/")[0], exist_ok=True)
            system.put_file(str(file), self.path)
        found, size = file_size(RemotePath(self.url, self.path)), file.stat().st_size
        if found != size:
            raise RemoteError(f"{self} has {found} bytes there, and should have {size}")

    def remove(self) -> None:
        """Remove the file.

        Raises:
            RemoteError: That is not possible.
        """
        with self._explained("removed"):
            _system(self.url)[0].rm_file(self.path)

    def version(self) -> str:
        """A text that changes when the file does, as far as the other machine tells."""
        told = self._info() or {}
        names = ("size", "ETag", "etag", "LastModified", "mtime", "updated", "created", "blob_id")
        return repr([str(told[name]) for name in names if name in told])

    def _info(self) -> dict[str, Any] | None:
        with self._explained("reached"):
            try:
                system = _system(self.url)[0]
                system.invalidate_cache()
                return dict(system.info(self.path))
            except FileNotFoundError as error:
                # Of http, whatever goes wrong is called so, with the reason as its cause.
                reason = error.__cause__
                if (
                    reason is None
                    or isinstance(reason, FileNotFoundError)
                    or getattr(reason, "status", None) in (404, 410)
                ):
                    return None
                raise reason from None

    def _bare(self) -> str:
        return re.split(r"[?#]", self.path)[0] if self.scheme in HTTP else self.path

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Whatever a library raises becomes a `RemoteError` that shows no credentials."""
        try:
            yield
        except (RemoteError, ArgumentError, MemoryError):
            raise
        except Exception as error:  # each library has its own
            raise RemoteError(
                f"{self} cannot be {what}: {_reason(error)}; check the name, the credentials and "
                "the network"
            ) from None


AnyPath = Path | RemotePath
"""A file or directory, here or elsewhere."""


def as_path(given: str | AnyPath) -> AnyPath:
    """What a text names: a URL, or else a path.

    Args:
        given: A text, or what is a path already.

    Raises:
        ArgumentError: No library is there for a URL.
    """
    if isinstance(given, RemotePath):
        return given
    return RemotePath.of(given) if is_url(given) else Path(given)


def file_size(file: AnyPath) -> int:
    """Bytes of a file that is there.

    Args:
        file: A file, here or elsewhere.

    Raises:
        RemoteError: Nobody answers.
    """
    if isinstance(file, Path):
        return file.stat().st_size
    size = file.size if file.size is not None else file.measured().size
    assert size is not None
    return size


class _Reader(io.RawIOBase):
    """A remote file as Python's own streams have it, with our errors."""

    def __init__(self, file: RemotePath) -> None:
        self._file = file
        self._left = file_size(file)
        with file._explained("read"):
            self._stream = _system(file.url)[0].open(
                file.path, "rb", block_size=_READ_AHEAD_BYTES, cache_type="readahead"
            )
        found = getattr(self._stream, "size", self._left)
        if found not in (None, self._left):
            self.close()
            raise RemoteError(
                f"{file} has {found} bytes, and had {self._left} before; leave a corpus as it is "
                "while it is read"
            )
        self.name = str(file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def readinto(self, buffer: Any) -> int:
        with self._file._explained("read"):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        with self._file._explained("read"):
            return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _system(url: str) -> tuple[Any, str]:
    """Fsspec's file system for a URL, and the path in it. It keeps one for each place."""
    from fsspec.core import url_to_fs

    scheme = url.partition("://")[0].lower()
    try:
        system, path = url_to_fs(url)
    except ImportError as error:
        remedy = "pip install 'gpt-neox-japanese[remote]'"
        if scheme not in _OF_THE_EXTRA:
            remedy = f"{error}"
        raise ArgumentError(
            f"{scheme}:// needs a library that is not installed: {remedy}"
        ) from None
    except ValueError as error:
        raise ArgumentError(f"{scheme}:// cannot be used: {_reason(error)}") from None
    return system, str(path)


def without_secrets(text: str) -> str:
    """A text without what may be credentials in the URLs of it: users, queries.

    Args:
        text: A URL, or a message with some.
    """
    return re.sub(r"(?<=://)[^/@\s]*@|[?#][^\s'\"]+", "", text)


def _reason(error: BaseException) -> str:
    """What an error says, on one line and without what may be secret."""
    if (status := getattr(error, "status", None)) is not None:  # of aiohttp
        return f"{status} {getattr(error, 'message', '')}".strip()
    return without_secrets(" ".join(str(error).split()) or type(error).__name__)
