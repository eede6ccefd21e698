"""The model that comes with the package, opened once; a server process for those who need one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gpt_neox_japanese.inference.generator import TextGenerator
from gpt_neox_japanese.server.service import ServedModel
from tests.server.serving import Process, Server, serving


@pytest.fixture(scope="session")
def model() -> Iterator[ServedModel]:
    with TextGenerator.from_pretrained(threads=1, slots=4) as generator:
        yield ServedModel("default", generator)


@pytest.fixture(scope="session")
def server(model: ServedModel) -> Server:
    return Server(model)


@pytest.fixture(scope="session")
def process() -> Iterator[Process]:
    """A server with two slots, asked through sockets."""
    with serving("--slots", 2, "--write-timeout", 1) as started:
        yield started


@pytest.fixture(autouse=True)
def _log_as_at_first() -> Iterator[None]:
    """The command sends its log to standard error; the next test wants it as it was."""
    log = logging.getLogger("gpt_neox_japanese.server")
    yield
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)
