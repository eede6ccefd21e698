"""A program: renders one Jinja template again and again, in a process that can be ended.

A chat template comes with a model, from anywhere. Jinja's sandbox keeps it from files and from
Python's insides, but not from computing for ever or filling the memory. `template_renderer`
starts this file, writes the template to it and then the variables of each rendering, one JSON
value a line, and reads an object a line: the `text`, or the `error`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

_MAX_BYTES = 1 << 30  # of memory
_MAX_SECONDS = 10  # of work on a line; who asked ends it sooner, if it still lives
_MAX_CHARACTERS = 1 << 22  # of a rendering: more than any context holds


def main() -> None:
    """Read, render and write until nothing more comes."""
    _limit_memory()
    template = None
    for line in sys.stdin:
        _end_after(_MAX_SECONDS)
        try:
            if template is None:
                template = _compile(json.loads(line))
                answer = {"text": ""}
            else:
                answer = {"text": _render(template, json.loads(line))}
        except Exception as error:
            answer = {"error": str(error) or type(error).__name__}
        _end_after(0)
        print(json.dumps(answer), flush=True)


def _compile(source: str) -> Any:
    """A template, with the tags, filters and functions that transformers gives one."""
    from jinja2 import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}`, around what a model writes: changes nothing."""

        tags = {"generation"}  # noqa: RUF012 as jinja2 has it

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

        def _text(self, caller: Callable[[], str]) -> str:
            return caller()

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; jinja2's own filter escapes it for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(format: str) -> str:  # noqa: A002 templates may name it
    return datetime.now().strftime(format)


def _render(template: Any, variables: dict[str, Any]) -> str:
    text: str = template.render(variables)
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"it makes {len(text)} characters of them, above {_MAX_CHARACTERS}")
    return text


def _end_after(seconds: int) -> None:
    """Let the system end this process then; never if 0."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # where a system has no such limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MAX_BYTES, _MAX_BYTES))


if __name__ == "__main__":
    main()
