"""How fast stored weights are read while they are multiplied, beside torch and a plain read.

    python benchmarks/bench_kernels.py [--megabytes 200] [--rounds 7] [--threads 2]

Matrices of 10240 × 2560, more of them than the caches hold. GB/s are bytes of weights with their
scales. Everything is measured in turns in one run, because memory gives more at one minute than at
another.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
import torch
from harness import interleaved, median, write_result

from gpt_neox_japanese.kernels.parallel_for import parallel_for
from gpt_neox_japanese.kernels.products import gemv as kernel
from gpt_neox_japanese.quantization.formats import Matrix
from gpt_neox_japanese.quantization.matmul import matmul

OUTPUTS, COLUMNS, GROUP = 10240, 2560, 64
ROWS = (1, 2, 3, 4, 6, 8, 16, 32)
RANDOM = np.random.default_rng(0)


def aligned(*shape: int, dtype: Any) -> np.ndarray:
    """An empty array at a multiple of 64 bytes, as checkpoints have it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + 64, np.uint8)
    start = -buffer.ctypes.data % 64
    array: np.ndarray = buffer[start : start + size].view(dtype).reshape(shape)
    return array


def filled(values: np.ndarray) -> np.ndarray:
    """A copy at such an address."""
    array = aligned(*values.shape, dtype=values.dtype)
    array[...] = values
    return array


def weights(kind: str) -> Matrix:
    """A random matrix in a format."""
    if kind == "float32":
        return Matrix(filled(RANDOM.standard_normal((OUTPUTS, COLUMNS), dtype=np.float32)))
    if kind == "bfloat16":
        values = RANDOM.standard_normal((OUTPUTS, COLUMNS), dtype=np.float32)
        return Matrix(filled((values.view(np.uint32) >> 16).astype(np.uint16)))
    if kind == "int8":
        numbers = RANDOM.integers(-127, 128, (OUTPUTS, COLUMNS), dtype=np.int8)
        return Matrix(filled(numbers), np.ones(OUTPUTS, np.float32))
    packed = RANDOM.integers(0, 256, (OUTPUTS, COLUMNS // 2), dtype=np.uint8)
    scales = np.full((OUTPUTS, COLUMNS // GROUP), 0x3F80, np.uint16)
    return Matrix(filled(packed), filled(scales))


@numba.njit(nogil=True)
def read(words: np.ndarray, first: int, last: int) -> np.uint64:
    """Read rows of 64-bit words and do next to nothing with them."""
    total = np.uint64(0)
    for row in range(first, last):
        for word in words[row]:
            total ^= word
    return total


def read_all(matrices: list[np.ndarray], threads: int) -> None:
    """Read all matrices."""
    for words in matrices:
        parallel_for(partial(read, words), OUTPUTS, threads)


def product(kind: str, matrices: list[Any], rows: int, threads: int) -> Callable[[], None]:
    """All matrices times the same activations, which are rounded once for each."""
    x = filled(RANDOM.standard_normal((rows, COLUMNS), dtype=np.float32))
    out = aligned(rows, OUTPUTS, dtype=np.float32)
    q, scales = aligned(rows, COLUMNS, dtype=np.int16), np.empty(rows, np.float32)
    corrections = aligned(rows, COLUMNS // GROUP, dtype=np.int32)

    def one(weight: Any) -> Callable[[int, int], Any]:
        if kind == "float32":
            return lambda *part: kernel.gemv_float32(weight.numbers, x, out, *part)
        if kind == "bfloat16":
            return lambda *part: kernel.gemv_bfloat16(weight.numbers, x, out, *part)
        kernel.quantize_rows(x, q, scales, corrections)
        if kind == "int8":
            own = (weight.numbers, weight.scales, q, scales)
            return lambda *part: kernel.gemv_int8(*own, out, *part)
        own4 = (weight.numbers, weight.scales, q, scales, corrections)
        return lambda *part: kernel.gemv_int4(*own4, out, *part)

    def run() -> None:
        for weight in matrices:
            parallel_for(one(weight), OUTPUTS, threads)

    return run


def torch_product(matrices: list[Any], kind: str, rows: int) -> Callable[[], None]:
    """The same by `torch.nn.functional.linear`, in the weights' dtype."""
    if kind == "float32":
        tensors = [torch.from_numpy(weight.numbers) for weight in matrices]
    else:
        tensors = [torch.from_numpy(weight.numbers).view(torch.bfloat16) for weight in matrices]
    x = torch.randn(rows, COLUMNS, dtype=tensors[0].dtype)

    def run() -> None:
        for tensor in tensors:
            torch.nn.functional.linear(x, tensor)

    return run


def main() -> None:
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200, help="of weights in each format")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    threads = arguments.threads
    torch.set_num_threads(threads)

    work: dict[str, Callable[[], Any]] = {}
    size: dict[str, int] = {}
    bytes_of_one = {"plain read": OUTPUTS * COLUMNS}
    kinds = ("float32", "bfloat16", "int8", "int4")
    for kind in kinds:
        matrices = [weights(kind)]
        bytes_of_one[kind] = matrices[0].nbytes
        while sum(w.nbytes for w in matrices) < arguments.megabytes * 1e6:
            matrices.append(weights(kind))
        for rows in ROWS:
            work[f"{kind}, rows {rows}"] = product(kind, matrices, rows, threads)
            if kind in ("float32", "bfloat16") and rows in (1, 8):
                work[f"{kind}, rows {rows}, torch"] = torch_product(matrices, kind, rows)
        if kind == "int8":
            words = [weight.numbers.view(np.uint64) for weight in matrices]
            work["plain read"] = partial(read_all, words, threads)
        for name in work:
            size.setdefault(name, sum(w.nbytes for w in matrices))

    with torch.inference_mode():
        seconds = interleaved(work, arguments.rounds)
        rate = {name: size[name] / median(seconds[name]) / 1e9 for name in work}
        for name, value in rate.items():
            print(f"{name:30}{value:8.1f} GB/s")
        many = {kind: 8 * rate[f"{kind}, rows 8"] / rate[f"{kind}, rows 1"] for kind in kinds}
        for kind, value in many.items():
            print(f"{kind:30}{value:8.2f} times the products with 8 rows")
        products = {name: value / bytes_of_one[name.split(",")[0]] for name, value in rate.items()}
        faster = {
            rows: products[f"int4, rows {rows}"] / products[f"int8, rows {rows}"] for rows in ROWS
        }
        for rows, value in faster.items():
            print(f"int4, rows {rows:<18}{value:8.2f} times the products of int8")
        operations = prefill(arguments.rounds, threads)
    path = write_result(
        "kernels",
        ["numba", "numpy", "torch"],
        gigabytes_per_second=rate,
        gain_with_eight_rows=many,
        products_of_int4_over_int8=faster,
        threads=threads,
        prefill_giga_operations_per_second=operations,
    )
    print(path)


def prefill(rounds: int, threads: int) -> dict[str, float]:
    """Products of 512 rows, in 10^9 multiplications and additions a second."""
    rows = 512
    x = RANDOM.standard_normal((rows, COLUMNS), dtype=np.float32)
    matrices = {kind: weights(kind) for kind in ("float32", "bfloat16", "int8", "int4")}
    work: dict[str, Callable[[], Any]] = {
        f"{kind}, rows {rows}": partial(matmul, x, weight, threads=threads)
        for kind, weight in matrices.items()
    }
    single = torch.from_numpy(matrices["float32"].numbers)
    half = torch.from_numpy(matrices["bfloat16"].numbers).view(torch.bfloat16)
    whole = torch.from_numpy(matrices["int8"].numbers)
    given = torch.from_numpy(x)
    bytes_given = torch.randint(-127, 128, (rows, COLUMNS), dtype=torch.int8)
    work["float32, torch"] = lambda: torch.nn.functional.linear(given, single)
    work["bfloat16, torch"] = lambda: torch.nn.functional.linear(given.bfloat16(), half)
    work["int8 and int8, torch._int_mm"] = lambda: torch._int_mm(bytes_given, whole.T)
    work["int8 made float32, torch"] = lambda: torch.nn.functional.linear(
        given, torch.from_numpy(matrices["int8"].floats())
    )
    seconds = interleaved(work, min(rounds, 5))
    rate = {name: 2e-9 * rows * OUTPUTS * COLUMNS / median(s) for name, s in seconds.items()}
    for name, value in rate.items():
        print(f"{name:30}{value:8.0f} GOP/s")
    return rate


if __name__ == "__main__":
    main()
