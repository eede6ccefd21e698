"""Mutations that the fuzzers share: of bytes, JSON values, safetensors headers and numbers, kinds.

Each changes one file, as a `random.Random` decides, and says in a few words what it did.
"""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = [
    "change_bytes",
    "change_header",
    "change_json",
    "change_json_text",
    "change_numbers",
    "replace_file",
]

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, 3, -1, 7, 16, 255, 2**20, 2**20 + 1, 10**7, 2**31, 2**63, 2**64),
    *(10**30, 10**400, 0.0, -0.0, 0.5, 1.0, 1e-320, 1e-300, 1e30, 1e300),
    *(
        float("nan"),
        float("inf"),
        float("-inf"),
        "",
        "1",
        "gelu",
        "relu",
        "\0",
        "\ud800",
        "x" * 999,
    ),
    *("../x", "/etc/passwd", "someone/kernel", "yarn", "linear", "dynamic", "float16", "int8"),
    *([], [1], [0, 0], [[]], [-1], [2**70], {}, {"a": 1}, {"": None}, [None], ["a"]),
)
NEAR: tuple[Callable[[float], float], ...] = (
    *(lambda n: n + 1, lambda n: n - 1, lambda n: -n),
    *(lambda n: n * 2, lambda n: n / 2, lambda n: n * 1000),
)
DTYPES = ("F64", "F32", "F16", "BF16", "I8", "U8", "I64", "BOOL", "F8_E4M3", "", "f32", 3)


def change_bytes(draw: random.Random, file: Path) -> str:
    """Flip, cut, repeat or insert some bytes of a file."""
    data = bytearray(file.read_bytes())
    place = draw.randrange(len(data) + 1)
    kind = draw.randrange(6)
    if kind == 0:
        del data[place:]
    elif kind == 1:
        del data[place : place + draw.randrange(1, 40)]
    elif kind == 2:
        data[place:place] = data[place : place + draw.randrange(1, 40)]
    elif kind == 3:
        data[place:place] = draw.randbytes(draw.randrange(1, 20))
    elif kind == 4:
        data[place : place + 4] = draw.choice((bytes(4), b"\xff" * 4, b",,,,", b"\r\n\r\n"))
    else:
        for _ in range(draw.randrange(1, 10)):
            if data:
                data[draw.randrange(len(data))] = draw.randrange(256)
    file.write_bytes(data)
    return f"bytes {kind} at {place}"


def replace_file(draw: random.Random, file: Path) -> str:
    """Put something else in the place of a file, or nothing."""
    file.unlink()
    kind = draw.choice(
        ("missing", "empty", "folder", "pipe", "nowhere", "itself", "zero", "null", "outside")
    )
    if kind == "empty":
        file.touch()
    elif kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind != "missing":
        targets = {"nowhere": "/nowhere/at/all", "itself": file.name, "outside": "/etc/hostname"}
        file.symlink_to(targets.get(kind, f"/dev/{kind}"))
    return kind


def change_json(draw: random.Random, file: Path, names: Sequence[str]) -> str:
    """Change a value of a JSON file, on any level.

    Args:
        draw: Decides.
        file: Of JSON.
        names: Keys that may be put in.
    """
    text, said = change_json_text(draw, file.read_bytes(), names)
    if text is not None:
        file.write_text(text, encoding="utf-8")
    return said


def change_json_text(
    draw: random.Random, data: bytes, names: Sequence[str]
) -> tuple[str | None, str]:
    """Change a value of JSON, on any level.

    Args:
        draw: Decides.
        data: JSON.
        names: Keys that may be put in.

    Returns:
        The new text, None if it was no JSON, and what was done.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None, "no JSON"
    if draw.random() < 0.03:
        return draw.choice(("[" * 100_000, "{}", "[]", "null", "1", '"a"', "NaN")), "other JSON"
    said = _change_value(draw, value, names)
    text = json.dumps(value)
    if draw.random() < 0.02:
        text = text.replace("{", '{"vocab_size": 1, "vocab_size": "two", ', 1)
    return text, said


def _change_value(draw: random.Random, value: Any, names: Sequence[str]) -> str:
    """Change something in a JSON object or list, on any level."""
    if not isinstance(value, dict | list):
        return "nothing"
    inner = value
    where = []
    while draw.random() < 0.5:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        below = [key for key in keys if isinstance(inner[key], dict | list) and inner[key]]
        if not below:
            break
        where.append(draw.choice(below))
        inner = inner[where[-1]]
    new = draw.choice(STRANGE)
    if isinstance(inner, list):
        place = draw.randrange(len(inner) + 1)
        inner[place : place + draw.randrange(2)] = [new]
        return f"{where} at {place}: {new!r:.60}"
    name = draw.choice(list(inner)) if inner and draw.random() < 0.7 else draw.choice(names)
    kind = draw.randrange(12)
    if kind == 0:
        inner.pop(name, None)
        return f"{where} {name} removed"
    if kind == 1:
        inner[name] = [inner.get(name)]
        return f"{where} {name} in a list"
    if kind == 2:
        inner[name] = str(inner.get(name))
        return f"{where} {name} as a string"
    if kind == 3:
        inner[draw.choice(names)] = inner.pop(name, None)
        return f"{where} {name} renamed"
    number = inner.get(name)
    if kind < 6 and isinstance(number, int | float):
        change = draw.choice(NEAR)
        with suppress(OverflowError):  # there is no half of 10**400
            new = change(number)
    inner[name] = new
    return f"{where} {name}: {new!r:.60}"


def change_header(draw: random.Random, file: Path) -> str:
    """Change what the header of a safetensors file says."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return "no header"
    if not isinstance(header, dict) or not header:
        return "nothing in the header"
    body = data[8 + length :]
    if draw.random() < 0.1:
        wrong = draw.choice((0, 1, length - 1, length + 1, 2**32, 2**63, 2**64 - 1))
        file.write_bytes(struct.pack("<Q", wrong) + data[8:])
        return f"length {wrong}"
    name = draw.choice(sorted(header))
    entry = header[name] if isinstance(header[name], dict) else {}
    whole = {"dtype", "shape", "data_offsets"} <= entry.keys() and isinstance(entry["shape"], list)
    kind = draw.randrange(9) if whole else draw.choice((0, 4, 5, 6, 8))
    if kind == 0:
        said = _change_value(draw, header, ("dtype", "shape", "data_offsets", "x"))
    elif kind == 1:
        entry["shape"] = draw.choice(
            (entry["shape"][::-1], [*entry["shape"], 1], [1], [], [0], [2**62, 4], [-1])
        )
        said = f"{name} shape {entry['shape']}"
    elif kind == 2:
        entry["dtype"] = draw.choice(DTYPES)
        said = f"{name} dtype {entry['dtype']}"
    elif kind == 3 and entry["shape"] and str(entry["shape"][0]).isdecimal():
        # Both shape and place stay right, so that the file as a whole is.
        old, entry["dtype"] = entry["dtype"], draw.choice(("F16", "I8", "BF16", "U8", "F64"))
        size = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1}
        rows = int(entry["shape"][0]) * size.get(str(old), 1) // size[entry["dtype"]]
        entry["shape"] = [rows, *entry["shape"][1:]]
        said = f"{name} as {entry['dtype']} {entry['shape']}"
    elif kind == 4:
        del header[name]
        said = f"{name} removed"
    elif kind == 5:
        new = draw.choice(("__metadata__", "", "x", f"{name}_scale", "embed_out.weight", "a" * 999))
        header[new] = header.pop(name)
        said = f"{name} called {new:.40}"
    elif kind == 6:
        new = draw.choice(("__metadata__", f"{name}_scale", "embed_out.weight", "new", "\0"))
        header[new] = {"dtype": "F32", "shape": [4], "data_offsets": [len(body), len(body) + 16]}
        body += struct.pack("<4f", *draw.choices((0.0, 1.0, float("nan"), 1e38), k=4))
        said = f"{new:.40} added"
    elif kind == 7:
        entry["data_offsets"] = draw.choice(([0, 0], [1, 2], [-1, 3], [0, 2**63], [0], [], [4, 0]))
        said = f"{name} at {entry['data_offsets']}"
    else:
        names = sorted(header)
        one, other = draw.choice(names), draw.choice(names)
        header[one], header[other] = header[other], header[one]
        said = f"{one} and {other} exchanged"
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return said


def change_numbers(draw: random.Random, file: Path) -> str:
    """Strange numbers among the weights."""
    data = bytearray(file.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    pattern = draw.choice(
        (
            *(b"\xff", b"\x00", b"\x7f", b"\x80", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f"),
            struct.pack("<f", draw.choice((3.4e38, -3.4e38, 1e22, 1e-30, 1e-45, 1e10, -1e-38))),
        )
    )
    if begin >= len(data):
        return "no numbers"
    start = begin + draw.randrange(len(data) - begin) // 4 * 4
    count = draw.choice((1, 64, 4096, len(data)))
    filled = (pattern * (count + 4))[: min(count * 4, len(data) - start)]
    data[start : start + len(filled)] = filled
    file.write_bytes(data)
    return f"{filled[:4].hex()} from {start} to {start + len(filled)}"
