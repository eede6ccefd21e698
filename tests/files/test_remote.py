"""Files on other machines are read as those here, and what goes wrong is told without secrets."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import fsspec
import pytest

from gpt_neox_japanese.errors import ArgumentError, RemoteError
from gpt_neox_japanese.files.remote import RemotePath, is_url, without_secrets
from tests.files.remote import WithoutRanges, WithRanges, http_server

SECRET = "AKIASECRET"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/a.txt", True),
        ("HTTPS://host/a.txt", True),
        ("C:\\corpus", False),
        ("C://corpus", False),
        ("corpus/a.txt", False),
        ("s3:", False),
        ("memory://", False),
        (Path("a"), False),
    ],
)
def test_a_url_is_told_from_a_path(name: object, expected: bool) -> None:
    assert is_url(name) is expected


def test_files_below_come_in_the_order_of_names_with_their_sizes(
    memory: fsspec.AbstractFileSystem,
) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c.txt", "a.txt"):
        memory.pipe(f"memory://order/{name}", name.encode())
    files = RemotePath.of("memory://order").files_below()
    assert [str(file) for file in files] == [
        f"memory://order/{name}" for name in ("a/b/c.txt", "a/z.txt", "a.txt", "b.txt")
    ]
    assert [file.size for file in files] == [9, 7, 5, 5]
    assert [file.name for file in files] == ["c.txt", "z.txt", "a.txt", "b.txt"]
    assert RemotePath.of("memory://order").kind() == "directory"
    assert RemotePath.of("memory://none").kind() is None


def test_a_path_elsewhere_can_be_pickled(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("memory://pickled/a.txt", "猫".encode())
    [file] = pickle.loads(pickle.dumps(RemotePath.of("memory://pickled").files_below()))
    assert file.read_text("utf-8") == "猫"


def test_a_file_that_changed_its_size_is_not_read_on(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("memory://changed/a.txt", b"before")
    [file] = RemotePath.of("memory://changed").files_below()
    memory.pipe("memory://changed/a.txt", b"after that")
    with pytest.raises(RemoteError, match=r"a\.txt has 10 bytes, and had 6 before"):
        file.open()


@pytest.mark.parametrize("handler", [WithRanges, WithoutRanges])
def test_http_is_read_with_and_without_ranges(tmp_path: Path, handler: object) -> None:
    data = bytes(range(256)) * 20_000
    (tmp_path / "猫 a.bin").write_bytes(data)
    with http_server(tmp_path, handler) as address:
        file = RemotePath.of(f"{address}/%E7%8C%AB%20a.bin?key={SECRET}")
        assert (file.name, file.suffix) == ("猫 a.bin", ".bin")
        assert file.is_file()
        with file.measured().open() as stream:
            assert stream.read() == data


def test_what_is_not_there_by_http_is_told_from_a_server_that_is_not_there(
    tmp_path: Path,
) -> None:
    with http_server(tmp_path) as address:
        assert RemotePath.of(f"{address}/none.txt").kind() is None
    with pytest.raises(RemoteError, match=r"cannot be reached: .*; check the name"):
        RemotePath.of(f"{address}/none.txt").kind()


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@127.0.0.1:9/a.txt",
        f"http://{SECRET}@127.0.0.1:9/a.txt",
        f"http://127.0.0.1:9/a.txt?X-Amz-Signature={SECRET}",
        f"http://127.0.0.1:9/a.txt#{SECRET}",
    ],
)
def test_no_message_shows_credentials(url: str) -> None:
    path = RemotePath.of(url)
    assert str(path) == "http://127.0.0.1:9/a.txt"
    with pytest.raises(RemoteError) as error:
        path.kind()
    assert SECRET not in str(error.value)
    assert error.value.__suppress_context__
    assert SECRET not in without_secrets(f"Cannot connect to '{url}': 403")


@pytest.mark.parametrize(
    ("url", "library", "remedy"),
    [
        ("s3://bucket/a.txt", "s3fs", r"pip install 'gpt-neox-japanese\[remote\]'"),
        ("gs://bucket/a.txt", "gcsfs", "gcsfs"),
        ("unheard://of/it", "unheard", "Protocol not known"),
    ],
)
def test_a_missing_library_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, url: str, library: str, remedy: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, url.partition(":")[0], raising=False)
    with pytest.raises(ArgumentError, match=remedy):
        RemotePath.of(url)
