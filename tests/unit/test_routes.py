"""The tables of routes: sound rows, and a complete OpenAPI description of all of them."""

import json
import re
from collections.abc import Sequence
from typing import Any, get_args

import msgspec
import pytest

from rbee_core import wire
from rbee_core.client import calls
from rbee_core.client.calls import Call
from rbee_core.dialects import fields
from rbee_core.dialects.fields import Foreign
from rbee_core.errors import error_classes
from rbee_core.hive.dialects.table import TABLE as HIVE
from rbee_core.http import openapi
from rbee_core.http.routes import KEYLESS, Route, Scope
from rbee_core.worker.server import TABLE as WORKER

Json = dict[str, Any]


def described(table: Sequence[Route]) -> Json:
    """Return the description as a client gets it."""
    return json.loads(wire.encode(openapi.document(table, "rbee", "1", "A pool.")))


TABLES = {"hive": (HIVE, described(HIVE)), "worker": (WORKER, described(WORKER))}
ROWS = [(name, row) for name, (table, _) in TABLES.items() for row in table]
EACH_TABLE = pytest.mark.parametrize(("table", "description"), TABLES.values(), ids=TABLES.keys())
EACH_ROW = pytest.mark.parametrize(
    ("program", "row"), ROWS, ids=[f"{name} {row.method} {row.plain_path}" for name, row in ROWS]
)


@EACH_TABLE
def test_every_row_is_one_operation(table: Sequence[Route], description: Json) -> None:
    paths = description["paths"]
    assert {(m.upper(), path) for path, methods in paths.items() for m in methods} == {
        (row.method, row.plain_path) for row in table
    }
    names = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(names) == len(set(names)) == len(table)


@EACH_ROW
def test_a_row_says_what_it_answers(program: str, row: Route) -> None:
    assert row.summary
    assert bool(row.answers) != bool(row.events)
    assert set(row.parameters) <= set(row.names)
    looks = row.method == "GET" or row.path == "/api/show"  # for which Ollama's clients send a body
    assert (row.scope in (Scope.OPEN, Scope.READ)) == looks, "what only looks is a GET"
    assert not (row.method in ("GET", "DELETE") and row.body)


@EACH_ROW
def test_shapes_that_come_in_are_strict(program: str, row: Route) -> None:
    """But for clients of others, whose servers ignore what they do not know."""
    for shape in (row.query, row.body):
        assert shape is None or issubclass(shape, Foreign if row.error_body else wire.Strict)


@EACH_ROW
def test_the_description_of_a_row_is_complete(program: str, row: Route) -> None:
    operation = TABLES[program][1]["paths"][row.plain_path][row.method.lower()]
    parameters = {(p["in"], p["name"]) for p in operation.get("parameters", [])}
    query = row.query.__struct_fields__ if row.query else ()
    taken = (("path", row.names), ("query", query), ("header", row.headers))
    assert parameters == {(where, name) for where, names in taken for name in names}
    assert ("requestBody" in operation) == (row.body is not None)
    responses = operation["responses"]
    assert set(map(str, row.answers)) <= set(responses)
    streams = {"text/event-stream"} if row.events else {row.stream} if row.stream else set()
    assert set(responses.get("200", {}).get("content", {})) - {"application/json", "text/plain"} == streams
    assert ("401" in responses) == (row.scope is not Scope.OPEN)
    assert bool(operation["security"]) == (row.scope is not Scope.OPEN)
    for cls in openapi.errors_of(row):
        assert cls.code in responses[str(cls.http_status)]["description"]


@EACH_ROW
def test_an_error_is_described_as_its_dialect_says_it(program: str, row: Route) -> None:
    error = fields.refusal("tools", "a hive runs no tools")
    body = row.error_body(error) if row.error_body else error.body()
    assert msgspec.convert(body, openapi.error_shape(row)) is not None
    if row.error_body and row.body:
        responses = TABLES[program][1]["paths"][row.plain_path][row.method.lower()]["responses"]
        assert "NOT_SUPPORTED" in responses["400"]["description"], "which is how a field is refused"


def test_an_event_is_described_as_text_that_holds_one_of_the_shapes_or_ends_the_stream() -> None:
    answer = TABLES["hive"][1]["paths"]["/v1/embed"]["post"]["responses"]["200"]
    data = answer["content"]["text/event-stream"]["schema"]["properties"]["data"]["anyOf"]
    assert data[0] == {"const": "[DONE]"}
    assert {"$ref": "#/components/schemas/VectorEvent"} in data[1]["contentSchema"]["anyOf"]


def test_an_error_s_code_is_one_of_those_there_are() -> None:
    code = TABLES["hive"][1]["components"]["schemas"]["ErrorObject"]["properties"]["code"]
    assert code == {"type": "string", "enum": sorted(cls.code for cls in error_classes())}


def test_shapes_are_described_as_they_are_checked() -> None:
    spawn = TABLES["hive"][1]["components"]["schemas"]["SpawnRequest"]
    assert spawn["required"] == ["model_ref"]
    assert spawn["additionalProperties"] is False
    assert spawn["properties"]["device"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 1023}


def test_the_callback_of_a_worker_is_the_one_route_that_checks_its_caller_itself() -> None:
    assert [row.path for row in HIVE if row.scope is Scope.WORKER] == ["/v1/workers/ready"]
    assert [row.path for row in HIVE if row.scope in KEYLESS] == [
        "/v1/health",
        "/v1/workers/ready",
        "/",
        "/api/version",
    ]
    assert [row.path for row in WORKER if row.scope in KEYLESS] == ["/v1/health"]


def test_a_query_is_a_flat_struct_of_texts_and_numbers() -> None:
    for row in (*HIVE, *WORKER):
        for field in msgspec.structs.fields(row.query) if row.query else ():
            assert not (isinstance(field.type, type) and issubclass(field.type, (list, dict, msgspec.Struct)))


CALLS: list[Call[Any]] = [
    calls.events(), calls.health(), calls.backends(), calls.models(),
    calls.list_workers(model="m", backend="b", device=0, state="idle"),
    calls.worker("w"), calls.worker_log("w", 0), calls.show_model("m", backend="b", context_tokens=1),
    calls.download(wire.DownloadRequest(model_ref="m")), calls.download_progress("d"), calls.remove_model("file:/m"),
    calls.spawn(wire.SpawnRequest(model_ref="m")), calls.stop_worker("w"), calls.shutdown(), calls.cancel("w", "r"),
    calls.cancel_request("r"), calls.pin("w", pinned=True),
    calls.inference("w", wire.InferenceRequest(prompt="p")),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_what_the_client_calls_is_a_row_with_its_shapes(call: Call[Any]) -> None:
    rows = [row for row in HIVE if row.method == call.method and _leads_to(call.path, row)]
    assert rows, "no such row"
    row = rows[0]
    assert set(call.query) <= set(row.query.__struct_fields__ if row.query else ())
    if get_args(call.answer):
        assert set(get_args(call.answer)) == set(row.events)
    elif row.events:
        assert all(hasattr(call.answer, field) for shape in row.events for field in shape.__struct_fields__)
    else:
        assert set(row.answers.values()) == {None if call.answer is type(None) else call.answer}
    if row.body:
        wire.decode(call.body or b"", row.body)


def _leads_to(path: str, row: Route) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", row.plain_path), path) is not None
