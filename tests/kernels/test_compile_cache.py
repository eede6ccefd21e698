"""Compiled code that is kept on disk: whatever happens to it, the next start is right."""

from __future__ import annotations

import ast
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

import gpt_neox_japanese
from gpt_neox_japanese.kernels import compile as kernel_compile
from gpt_neox_japanese.kernels import compile_cache as kernel_cache

pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),  # type: ignore[attr-defined]
    reason="nothing is compiled",
)

_KERNEL = """
from gpt_neox_japanese.kernels.compile import entry

@entry
def twice(x):
    return x + x
"""
_CALL = """
import sys
from kernel import twice
values = {"int": 21, "float": 1.5, "complex": 2j, "bool": True, "tuple": (1,)}
for name in sys.argv[1:]:
    print(twice(values[name]))
"""


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path) -> Path:
    """A module with one compiled function; its code is kept in `__pycache__` beside it."""
    file = tmp_path / "kernel.py"
    file.write_text(_KERNEL)
    return file


def start(kernel: Path) -> Callable[[Any], Any]:
    """The compiled function as a new process finds it."""
    spec = importlib.util.spec_from_file_location("kernel", kernel)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    twice: Callable[[Any], Any] = module.twice
    return twice


def process(kernel: Path, *arguments: str, code: str = _CALL) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(kernel.parent), *sys.path])}
    environment.pop("NUMBA_CACHE_DIR", None)
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(kernel: Path) -> list[Path]:
    return sorted((kernel.parent / "__pycache__").glob("*.nbc"))


def unfinished(kernel: Path) -> list[Path]:
    return list((kernel.parent / "__pycache__").glob("*.tmp"))


def flipped(data: bytes, index: int) -> bytes:
    index %= len(data)
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


def test_what_is_compiled_for_the_first_time_is_said_once(kernel: Path) -> None:
    out, err = process(kernel, "int", "int").communicate()
    assert out == "42\n42\n"
    assert err == "gpt-neox-japanese: compiling kernel.twice for this processor, once …\n"
    out, err = process(kernel, "int").communicate()
    assert (out, err) == ("42\n", "")


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        lambda data: data[:1],
        lambda data: data[:32],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:512] + bytes(len(data) - 512),
        lambda data: flipped(data, 0),
        lambda data: flipped(data, len(data) // 2),
        lambda data: flipped(data, -1),
        lambda data: data[::-1],
        "猫".encode() * 100,
    ],
)
def test_damaged_code_is_removed_compiled_anew_and_told_of(
    kernel: Path, damaged: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert start(kernel)(21) == 42
    (file,) = kept(kernel)
    file.write_bytes(damaged if isinstance(damaged, bytes) else damaged(file.read_bytes()))
    caplog.clear()
    assert start(kernel)(21) == 42
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert f"{file} is damaged; removing it" in caplog.messages[0]
    assert "compiling kernel.twice" in caplog.messages[1]
    caplog.clear()
    assert start(kernel)(21) == 42
    assert not caplog.records


def test_no_cut_and_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    kernel_cache._write(whole, b"machine code")
    data = whole.read_bytes()
    assert kernel_cache._read(whole) == b"machine code"
    for index in range(len(data)):
        for change in (data[:index], flipped(data, index)):
            broken.write_bytes(change)
            with pytest.raises(kernel_cache._DamagedError):
                kernel_cache._read(broken)


def test_code_of_no_use_here_is_replaced(kernel: Path, caplog: pytest.LogCaptureFixture) -> None:
    start(kernel)(21)
    (file,) = kept(kernel)
    kernel_cache._write(file, b"no pickle")
    caplog.clear()
    assert start(kernel)(21) == 42
    assert f"cannot use compiled code in {file}" in caplog.messages[0]
    caplog.clear()
    assert start(kernel)(21) == 42
    assert not caplog.records


def test_every_list_of_types_has_a_file_of_its_own(kernel: Path) -> None:
    twice = start(kernel)
    assert (twice(21), twice(1.5), twice((1,))) == (42, 3.0, (1, 1))
    assert len(kept(kernel)) == 3
    again = start(kernel)
    assert (again((1,)), again(1.5), again(21)) == ((1, 1), 3.0, 42)
    assert len(kept(kernel)) == 3


def test_changed_source_is_compiled_anew(kernel: Path) -> None:
    assert start(kernel)(21) == 42
    kernel.write_text(_KERNEL.replace("x + x", "x - x"))
    assert start(kernel)(21) == 0


def test_processes_that_compile_at_once_each_get_their_own_code(kernel: Path) -> None:
    expected = {"int": "42", "float": "3.0", "complex": "4j", "tuple": "(1, 1)"}
    for _ in range(2):  # compiled, then read
        running = [process(kernel, name, *expected) for name in [*expected, "int"]]
        for name, each in zip([*expected, "int"], running, strict=True):
            out, err = each.communicate()
            assert out.split("\n")[:-1] == [expected[name], *expected.values()], err
            assert "damaged" not in err
            assert "cannot" not in err
    assert len(kept(kernel)) == 4
    assert not unfinished(kernel)


def test_reader_beside_writers_never_sees_half_a_file(kernel: Path) -> None:
    start(kernel)(21)
    (file,) = kept(kernel)
    code = """
import sys
from pathlib import Path
from gpt_neox_japanese.kernels.compile_cache import _read, _write
path = Path(sys.argv[1])
content = _read(path)
for _ in range(300):
    _write(path, content)
"""
    writers = [process(kernel, str(file), code=code) for _ in range(2)]
    content = kernel_cache._read(file)
    while any(writer.poll() is None for writer in writers):
        assert kernel_cache._read(file) == content
    for writer in writers:
        assert writer.communicate() == ("", "")


def test_full_disk_is_told_of_and_leaves_nothing_behind(kernel: Path) -> None:
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    pytest.importorskip("resource")
    out, err = process(kernel, "int", code=full + _CALL).communicate()
    assert out == "42\n"
    assert "cannot keep compiled code ([Errno 27] File too large)" in err
    assert err.count("\n") == 2
    assert not kept(kernel)
    assert not unfinished(kernel)


def test_without_a_directory_to_write_every_start_compiles_and_says_so(kernel: Path) -> None:
    # A file where the cache's directory should be stops root as well, unlike permissions.
    (kernel.parent / "__pycache__").touch()
    nowhere = "import os; os.environ['HOME'] = '/dev/null'; os.environ.pop('XDG_CACHE_HOME', 0)"
    for _ in range(2):
        out, err = process(kernel, "int", code=nowhere + _CALL).communicate()
        assert out == "42\n"
        assert err.count("\n") == 1
        assert "at every start: NUMBA_CACHE_DIR does not name a directory" in err


def test_damaged_code_that_cannot_be_removed_is_no_error(
    kernel: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(kernel)(21)
    (file,) = kept(kernel)
    file.write_bytes(b"")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(Path, "replace", refused)
    caplog.clear()
    assert start(kernel)(21) == 42
    assert "cannot remove it" in caplog.text


def test_name_is_no_longer_than_that_of_a_module(kernel: Path) -> None:
    start(kernel)(21)
    (file,) = kept(kernel)
    assert len(file.name) <= len(f"kernel.{sys.implementation.cache_tag}.pyc")


def test_sources_of_the_digest_hold_all_that_kernels_import() -> None:
    package = Path(gpt_neox_japanese.__file__).parent
    files = {file for pattern in kernel_compile._SOURCES for file in package.glob(pattern)}
    for file in files:
        compiled = file.stem.startswith("kernel_") or "kernels" in file.parts
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith(package.name):
                # Of a module that is not compiled itself, kernels can only take constants.
                names = [name.name for name in node.names if compiled or name.name.isupper()]
                source = package.parent / str(node.module).replace(".", "/")
                assert not names or source.with_suffix(".py") in files, f"{file}: {names}"


_INTERRUPTED = """
import logging, random, signal
from pathlib import Path
from gpt_neox_japanese.kernels.compile import entry
import kernel

def interrupt(*_):
    raise KeyboardInterrupt

logging.disable()
signal.signal(signal.SIGALRM, interrupt)
random.seed(8)
wrong = interrupts = 0
while interrupts < 50:
    if random.random() < 0.7:  # compiled, or else loaded
        for file in Path(kernel.__file__).parent.glob("__pycache__/*.nbc"):
            file.unlink()
    twice = entry(kernel.twice.py_func)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.2))
        twice(21)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    for again in (twice, entry(kernel.twice.py_func)):
        wrong += again(21) != 42
print(wrong)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such timer")
def test_interrupted_compiling_goes_on_and_is_right(kernel: Path) -> None:
    assert process(kernel, code=_INTERRUPTED).communicate() == ("0\n", "")
    assert not unfinished(kernel)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_child_that_is_forked_while_something_is_compiled_can_compile(kernel: Path) -> None:
    code = """
import os, threading, time
from numba.core.compiler_lock import global_compiler_lock
from kernel import twice
compiling = threading.Thread(target=twice, args=(21,))
compiling.start()
while global_compiler_lock._lock.acquire(blocking=False):
    global_compiler_lock._lock.release()
    time.sleep(0.001)
child = os.fork()
if child == 0:
    print(twice(1.5), flush=True)
    os._exit(0)
compiling.join()
os.waitpid(child, 0)
"""
    running = process(kernel, code=code)
    assert running.communicate(timeout=60)[0] == "3.0\n"


@pytest.mark.slow
def test_tokenizer_starts_with_damaged_code(tmp_path: Path) -> None:
    code = """
from gpt_neox_japanese.assets import default_model_directory
from gpt_neox_japanese.tokenizer.codec import Codec
codec = Codec.load(default_model_directory())
text = "吾輩は猫である。" * 2000
ids = codec.encode(text)
print(len(ids), codec.decode(ids) == text)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run() -> tuple[str, str]:
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return result.stdout, result.stderr

    first, said = run()
    assert "compiling tokenizer.kernel" in said
    files = list((tmp_path / "cache").rglob("*.nbc"))
    assert len(files) > 1
    for number, file in enumerate(files):
        file.write_bytes(b"" if number % 2 else bytes(file.stat().st_size))
    again, said = run()
    assert again == first
    assert said.count("is damaged; removing it") == len(files)
    assert run() == (first, "")
