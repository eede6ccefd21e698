"""What docstrings and comments name in backticks, as `module.name` or `Class.name`, is there."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import gpt_neox_japanese

PACKAGE = Path(gpt_neox_japanese.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# Endings of files and of tensors, not names in modules.
SUFFIXES = {"bias", "bin", "idx", "json", "jsonl", "md", "safetensors", "svg", "txt", "weight"}


def dotted(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def defined(file: Path) -> frozenset[str]:
    """What a module defines or imports, and the modules of a package."""
    names = {each.stem for each in file.parent.iterdir()} if file.stem == "__init__" else set()
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return frozenset(names)


@cache
def bound(file: Path) -> frozenset[str]:
    """Names that mean something else in a module than the module of that name."""
    arguments = (node.arg for node in ast.walk(parsed(file)) if isinstance(node, ast.arg))
    return defined(file) | frozenset(arguments)


@cache
def classes() -> dict[str, ast.ClassDef]:
    nodes = (node for file in MODULES for node in ast.walk(parsed(file)))
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def has(name: str, attribute: str) -> bool:
    """Whether a class has an attribute; one of a library may have any."""
    node = classes().get(name)
    if node is None:
        return True
    for each in ast.walk(node):
        match each:
            case ast.FunctionDef(name=found) | ast.Attribute(attr=found) | ast.Name(id=found):
                if found == attribute:
                    return True
    return any(has(getattr(base, "id", ""), attribute) for base in node.bases)


def texts(file: Path) -> Iterator[str]:
    source = file.read_text(encoding="utf-8")
    for node in ast.walk(parsed(file)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text
    comments = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    yield "\n".join(comments)


def is_there(name: str, file: Path) -> bool:
    first, *rest = name.split(".")
    if rest[-1] in SUFFIXES or name.startswith("self.") or first in dir(builtins):
        return True
    if rest == ["py"]:
        return any(module.stem == first for module in MODULES)
    if first[0].isupper():
        return has(first, rest[0])
    # The rest of a path to a module, `cpu.network`, or a name in that module.
    prefix, last = name.rpartition(".")[::2]
    for module in MODULES:
        path = f".{dotted(module)}"
        if path.endswith(f".{name}") or (path.endswith(f".{prefix}") and last in defined(module)):
            return True
    return first in bound(file) or importlib.util.find_spec(first) is not None


@pytest.mark.parametrize("file", MODULES, ids=dotted)
def test_what_is_named_in_backticks_is_there(file: Path) -> None:
    pattern = r"(?<!`)`([a-zA-Z_]\w*(?:\.\w+)+)(?:\([^`]*\))?`(?!`)"
    names = {name for text in texts(file) for name in re.findall(pattern, text)}
    assert sorted(name for name in names if not is_there(name, file)) == []
