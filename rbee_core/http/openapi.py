"""A table of rows as an OpenAPI 3.1 description. Pure: it reads the rows, nothing that runs."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from rbee_core import wire
from rbee_core.errors import (
    AccessDenied,
    InvalidApiKey,
    InvalidRequest,
    NotSupported,
    PayloadTooLarge,
    RbeeError,
    RouteNotFound,
    UnsupportedMediaType,
    error_classes,
)
from rbee_core.http.routes import KEYLESS, Route, Scope

Json = dict[str, Any]
COMPONENT = "#/components/schemas/{name}"
STREAM = "Server-sent events, each with one of these as JSON; the data of the last one is [DONE]."
KEY = {"type": "http", "scheme": "bearer", "description": "The server's key, where it has one."}
SECRET = {"type": "http", "scheme": "bearer", "description": "The secret that the worker named in the body has."}


def document(rows: Sequence[Route], title: str, version: str, description: str) -> Json:
    """Return the description of everything that `rows` serve."""
    shapes = _Shapes(rows)
    paths: dict[str, Json] = {}
    for row in rows:
        paths.setdefault(row.plain_path, {})[row.method.lower()] = _operation(row, shapes)
    shapes.components["ErrorObject"]["properties"]["code"]["enum"] = sorted(c.code for c in error_classes())
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": shapes.components, "securitySchemes": {"key": KEY, "workerSecret": SECRET}},
    }


def errors_of(row: Route) -> list[type[RbeeError]]:
    """Return every error that `row` can answer with: what it names, and what follows from its shapes and scope."""
    found: dict[type[RbeeError], None] = {AccessDenied: None}
    if row.scope not in KEYLESS:
        found[InvalidApiKey] = None
    if row.query or row.body or row.parameters:
        found[InvalidRequest] = None
    if row.names:  # what can be no part of a path
        found[RouteNotFound] = None
    if row.method == "POST":  # a body that is not wanted is looked at too
        found |= dict.fromkeys((PayloadTooLarge, UnsupportedMediaType))
    return list(found | dict.fromkeys((*row.errors, RbeeError)))


class _Shapes:
    """The JSON schemas of a table: of every struct by its name, and of the parts of paths."""

    def __init__(self, rows: Iterable[Route]) -> None:
        shapes: dict[Any, None] = {wire.ErrorBody: None}
        for row in rows:
            shapes |= dict.fromkeys((*row.parameters.values(), *row.answers.values(), *row.events, row.body, row.query))
            shapes[error_shape(row)] = None
        wanted = [shape for shape in shapes if shape is not None]
        schemas, self.components = msgspec.json.schema_components(wanted, ref_template=COMPONENT)
        self._schemas = dict(zip(wanted, schemas, strict=True))

    def of(self, shape: Any) -> Json:
        """Return the schema of a shape of the table, which is a reference for a struct."""
        return self._schemas[shape]

    def fields(self, shape: type[Struct]) -> tuple[Mapping[str, Json], Sequence[str]]:
        """Return the schemas of a struct's fields, and which of them must be there."""
        schema = self.components[shape.__name__]
        return schema["properties"], schema.get("required", [])


def _operation(row: Route, shapes: _Shapes) -> Json:
    operation: Json = {
        "operationId": row.handler.__name__,
        "summary": row.summary,
        "tags": [row.scope],
        "security": _security(row.scope),
        "responses": _answers(row, shapes),
    }
    headers = [{"name": name, "in": "header", "schema": {"type": "string"}} for name in row.headers]
    if parameters := [*_path_parameters(row, shapes), *_query_parameters(row, shapes), *headers]:
        operation["parameters"] = parameters
    if row.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(shapes.of(row.body))}
    return operation


def _security(scope: Scope) -> list[Json]:
    if scope is Scope.OPEN:
        return []
    return [{"workerSecret": []}] if scope is Scope.WORKER else [{"key": [scope]}]


def _path_parameters(row: Route, shapes: _Shapes) -> list[Json]:
    text = {"type": "string"}
    kinds = {name: shapes.of(row.parameters[name]) if name in row.parameters else text for name in row.names}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name, schema in kinds.items()]


def _query_parameters(row: Route, shapes: _Shapes) -> list[Json]:
    if row.query is None:
        return []
    fields, required = shapes.fields(row.query)
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema} for name, schema in fields.items()
    ]


def _answers(row: Route, shapes: _Shapes) -> Json:
    """Return one response a status: good ones, and the errors, which name their codes."""
    answers: dict[int, Json] = {}
    for status, shape in row.answers.items():
        body = {} if shape is None else {"content": {row.media.partition(";")[0]: {"schema": shapes.of(shape)}}}
        if row.stream and shape is not None:
            body["content"][row.stream] = {"schema": {}}
        answers[status] = {"description": HTTPStatus(status).phrase} | body
    if row.events:
        answers[200] = {"description": STREAM, "content": {"text/event-stream": {"schema": _event(row, shapes)}}}
    for status, codes in _codes(row).items():
        schemas = [_refusal(shapes.of(error_shape(row)), codes)]
        if status in row.answers:
            schemas.append(shapes.of(row.answers[status]))
        schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        answers[status] = {"description": " or ".join(codes), "content": _content(schema)}
    return {str(status): answers[status] for status in sorted(answers)}


def _codes(row: Route) -> dict[int, list[str]]:
    by_status: dict[int, list[str]] = {}
    for cls in errors_of(row):
        by_status.setdefault(cls.http_status, []).append(cls.code)
    if row.body is not None and row.error_body is not None:  # whose fields are refused by name, as their servers do
        by_status[InvalidRequest.http_status].append(NotSupported.code)
    return by_status


def error_shape(row: Route) -> Any:
    """Return the shape of the body of an error that `row` answers with."""
    return wire.ErrorBody if row.error_body is None else get_type_hints(row.error_body)["return"]


def _refusal(body: Json, codes: Sequence[str]) -> Json:
    code = {"properties": {"code": {"enum": codes}}}
    return {"allOf": [body, {"anyOf": [code | {"required": ["code"]}, {"properties": {"error": code}}]}]}


def _event(row: Route, shapes: _Shapes) -> Json:
    data = {"anyOf": [shapes.of(shape) for shape in row.events]}
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {"type": "object", "properties": {"data": {"anyOf": [{"const": "[DONE]"}, text]}}}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
