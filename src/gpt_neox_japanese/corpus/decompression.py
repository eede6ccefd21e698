"""The bytes inside a corpus file, decompressed, in chunks of one size.

The size of the chunks decides where a corpus is cut into blocks, and a run that continues counts
blocks. So it must not depend on how much a version of a library unpacks at a time.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from typing import IO

from gpt_neox_japanese.corpus.corpus_files import compression_of
from gpt_neox_japanese.errors import CorpusError
from gpt_neox_japanese.files.remote import AnyPath, file_size

__all__ = ["decompressed"]

_CHUNK_BYTES = 2**20
_PACKED_BYTES = 2**10  # unpacked thirty-thousandfold, as zstd may, they still fit into memory

# A frame names its own window, and so much memory is taken. zstd itself reads 2**27 unless told so.
_LONGEST_WINDOW = 2**28

Chunks = Iterator[tuple[bytes, int]]
"""Some bytes, and how far in the file itself they end."""


def decompressed(file: AnyPath) -> Chunks:
    """Chunks of a file's uncompressed bytes, each with how far in the file itself it ends.

    What follows the last member of a .gz file and is none is passed over, as `gzip -d` does; one
    line on stderr says so, if it is more than zeros.

    Args:
        file: A corpus file, compressed or not.

    Yields:
        Some bytes, and how far in the file they end.

    Raises:
        CorpusError: The file cannot be read, is no archive of its kind, or ends too early. What was
            decompressed before that has been given.
        RemoteError: Another machine does not answer.
    """
    read = {".gz": _read_gz, ".zst": _read_zst}.get(compression_of(file), _read_plain)
    pending, end = bytearray(), 0
    try:
        with file.open("rb") as stream:
            for chunk, end in read(stream):
                if not pending and len(chunk) == _CHUNK_BYTES:
                    yield chunk, end
                    continue
                pending += chunk
                while len(pending) >= _CHUNK_BYTES:
                    yield bytes(pending[:_CHUNK_BYTES]), end
                    del pending[:_CHUNK_BYTES]
        end = file_size(file)
    except (OSError, EOFError, zlib.error) as error:
        yield bytes(pending), end
        reason = "it is truncated" if isinstance(error, EOFError) else error
        raise CorpusError(f"{file} cannot be read: {reason}") from error
    yield bytes(pending), end


def _read_plain(stream: IO[bytes]) -> Chunks:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk, stream.tell()


def _read_gz(stream: IO[bytes]) -> Chunks:
    start = stream.read(2)
    if not start:  # for `gzip` that is an archive without members
        raise EOFError
    is_gzip = start == b"\x1f\x8b"
    stream.seek(0)
    with gzip.GzipFile(fileobj=stream) as archive:
        try:
            while chunk := archive.read1(_CHUNK_BYTES):
                yield chunk, stream.tell()
        except gzip.BadGzipFile as error:
            # Of a file that begins with a member, this is about what follows a whole one.
            if not (is_gzip and str(error).startswith("Not a gzipped file")):
                raise
            if str(error).endswith(r"(b'\x1f')"):  # the first byte of one more member
                raise EOFError from error
            print(f"passed over: what follows the archive in {stream.name}", file=sys.stderr)


def _read_zst(stream: IO[bytes]) -> Chunks:
    import zstandard

    # zstandard's own readers do not notice a file that ends in the middle of a frame.
    unpacker = zstandard.ZstdDecompressor(max_window_size=_LONGEST_WINDOW)
    frame = None
    rest = b""
    try:
        while packed := rest or stream.read(_PACKED_BYTES):
            if frame is None or frame.eof:
                frame = unpacker.decompressobj()
            chunk = frame.decompress(packed)
            rest = frame.unused_data
            yield chunk, stream.tell() - len(rest)
    except zstandard.ZstdError as error:
        raise OSError(_explained(error)) from error
    if frame is None or not frame.eof:
        raise EOFError


def _explained(error: Exception) -> str:
    if "too much memory" not in str(error):
        return str(error)
    return (
        f"its window is longer than {_LONGEST_WINDOW:,} bytes, and reading it would take as much"
        " memory; unpack it with `zstd -d --long=31`, or pack it anew with `zstd --long=28` or less"
    )
