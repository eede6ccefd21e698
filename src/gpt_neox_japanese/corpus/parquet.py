"""Parts of Parquet files: a row is a document, a row group a part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gpt_neox_japanese.corpus.documents import Document, Layout, name_of
from gpt_neox_japanese.corpus.parts import MAX_DOCUMENT_BYTES, Broken, Part
from gpt_neox_japanese.errors import CorpusError, RemoteError
from gpt_neox_japanese.files.remote import AnyPath, RemotePath, file_size

__all__ = ["RowGroup", "read_row_groups"]

_ROWS_AT_ONCE = 256
# A file can hold a long text once, and say that many rows have it. Unpacked, each has its own.
_BYTES_AT_ONCE = 2**29


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file.

    Attributes:
        file: The file.
        size: Its share of the file's bytes.
        first: The first row's number in the file, from 1.
        index: Which row group it is, from 0.
    """

    file: AnyPath
    size: int
    first: int
    index: int

    def documents(self, layout: Layout) -> Iterator[Document | CorpusError]:
        """The rows of the group.

        Args:
            layout: Which fields or columns hold the text and the id.

        Yields:
            A document for each row, or an error in its place. A group that cannot be
            read ends with an error.
        """
        from pyarrow import parquet

        number = self.first
        try:
            with _source(self.file) as source, parquet.ParquetFile(source) as table:
                columns = _columns(self.file, table.schema_arrow, layout)
                rows = _rows_at_once(table.metadata.row_group(self.index), columns)
                for batch in table.iter_batches(rows, row_groups=[self.index], columns=columns):
                    for row in range(batch.num_rows):
                        yield self._document(batch, row, number, layout)
                        number += 1
        except CorpusError as error:
            yield error
        except RemoteError:
            raise
        except Exception as error:  # of a broken file, pyarrow raises Python's errors as well
            yield CorpusError(f"{self.file}, row {number}: cannot be read: {_one_line(error)}")

    def _document(
        self, batch: Any, row: int, number: int, layout: Layout
    ) -> Document | CorpusError:
        try:
            text = _value(batch, layout.text_field, row)
            given = _value(batch, layout.id_field, row)
            document_id = f"{name_of(self.file)}:{number}" if given is None else str(given)
        except UnicodeDecodeError as error:
            return CorpusError(f"{self.file}, row {number}: not UTF-8 ({error.reason})")
        except Exception as error:  # of the many kinds of an id, some have values Python has not
            return CorpusError(f"{self.file}, row {number}: cannot be read: {_one_line(error)}")
        if not isinstance(text, str):
            return CorpusError(f"{self.file}, row {number}: {layout.text_field!r} is null")
        if len(text) > MAX_DOCUMENT_BYTES // 3:
            return CorpusError(
                f"{self.file}, row {number}: longer than {MAX_DOCUMENT_BYTES // 3:,} characters;"
                " split this document"
            )
        return Document(document_id, text, self.file, number)


def _rows_at_once(group: Any, columns: list[str]) -> int:
    """How many rows fit in memory even if each has all the text that the group holds."""
    parts = (group.column(index) for index in range(group.num_columns))
    size: int = sum(
        part.total_uncompressed_size
        for part in parts
        if part.path_in_schema.split(".")[0] in columns
    )
    return min(_ROWS_AT_ONCE, max(1, _BYTES_AT_ONCE // max(1, size)))


def _value(batch: Any, name: str, row: int) -> Any:
    """A value of a row; None where the file has no such column."""
    return batch[name][row].as_py() if name in batch.schema.names else None


def read_row_groups(file: AnyPath) -> Iterator[Part]:
    """Cut a Parquet file into its row groups.

    Args:
        file: A Parquet file.

    Yields:
        Its parts, in order.
    """
    from pyarrow import parquet

    try:
        with _source(file) as source:
            metadata = parquet.read_metadata(source)
    except RemoteError:
        raise
    except Exception as error:  # pyarrow raises Python's errors as well
        yield Broken(CorpusError(f"{file} cannot be read: {_one_line(error)}"))
        return
    first, done = 1, 0
    bytes_in_file = file_size(file)
    for index in range(metadata.num_row_groups):
        end = bytes_in_file * (index + 1) // metadata.num_row_groups
        yield RowGroup(file, end - done, first, index)
        first += metadata.row_group(index).num_rows
        done = end


@contextmanager
def _source(file: AnyPath) -> Iterator[Any]:
    """What pyarrow opens."""
    if isinstance(file, RemotePath):
        with file.open() as stream:
            yield stream
    else:
        yield file


def _columns(file: AnyPath, schema: Any, layout: Layout) -> list[str]:
    """The columns to read, with the one of the texts checked."""
    from pyarrow import types

    if layout.text_field not in schema.names:
        raise CorpusError(
            f"{file} has no column {layout.text_field!r}, only {', '.join(schema.names)}; "
            "name the one that holds the text"
        )
    for name in (layout.text_field, layout.id_field):
        if (count := schema.names.count(name)) > 1:
            raise CorpusError(f"{file} has {count} columns {name!r}; rename all but one")
    kind = schema.field(layout.text_field).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise CorpusError(f"{file}: column {layout.text_field!r} holds {kind}, expected string")
    return [name for name in (layout.text_field, layout.id_field) if name in schema.names]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
