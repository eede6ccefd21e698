from __future__ import annotations

import contextlib
from typing import Any

import hypothesis
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gpt_neox_japanese.server.app import make_app
from gpt_neox_japanese.server.service import ServedModel
from tests.server.serving import Server

_CHECKS = (
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)


def test_answers_are_as_described_whatever_is_asked(model: ServedModel) -> None:
    server = Server(model, allowed_hosts=("testserver",), max_queue=8)  # no answer takes long
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(server.service))
    settings = hypothesis.settings(
        max_examples=10,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate(checks=_CHECKS)

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong
                ask()


def test_description_names_what_there_is(server: Server, model: ServedModel) -> None:
    described = server.get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/v1/completions", "/v1/models", "/v1/models/{model}", "/tokenize", "/detokenize"),
        *("/health", "/metrics", "/"),
    }
    ids = described["components"]["schemas"]["DetokenizeRequest"]["properties"]["tokens"]["items"]
    assert ids["maximum"] == len(model.codec) - 1
    assert "security" not in described


def test_key_is_described_where_one_is_asked_for(model: ServedModel) -> None:
    server = Server(model, api_key="secret")
    described = server.get("/openapi.json", authorization="Bearer secret").json()
    assert described["security"] == [{"key": []}]
    assert described["paths"]["/health"]["get"]["security"] == []
