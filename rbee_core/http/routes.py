"""Routes as rows. One row says what is served, to whom, and with which shapes.

A program's table of rows is the one source of what aiohttp serves, of the access rules, of docs/reference/http.md and
of the OpenAPI description. A row names its handler as a function of a class; `application` binds it to the object that
the composition root made, so that a table can be read without a running program.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from rbee_core import wire
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.http import front

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")


class Scope(StrEnum):
    """What a caller must be allowed to do. A key opens every scope that needs one."""

    OPEN = "open"
    """Needs no key."""
    WORKER = "worker"
    """Needs no key either: the body names a worker and the handler checks the secret that worker was started with."""
    READ = "read"
    """Looks and changes nothing."""
    INFER = "infer"
    """Asks for text, and for the workers which that takes."""
    ADMIN = "admin"
    """Changes what the machine holds or runs."""


KEYLESS = frozenset({Scope.OPEN, Scope.WORKER})


class Route(Struct, frozen=True, kw_only=True):
    """One method of one path.

    `answers` maps each status of a good answer to the shape of its body, None for no body. `events` are the shapes of
    the events of a stream, which replaces the body of status 200. `errors` are those that this route itself can answer
    with; what every route can answer with follows from the rest of the row. `parameters` are the shapes of the parts
    of the path that are not any text, and are checked before the handler is called. `headers` are those that may say
    something which only this route heeds. `error_body` makes the body of an error for a route whose clients know
    another shape of it than ours. `media` is the type of an answer that is no JSON, `stream` of one that comes in parts
    because the client wants that.
    """

    method: str
    path: str
    handler: Callable[[Any, web.Request], Awaitable[web.StreamResponse]]
    scope: Scope
    summary: str
    parameters: Mapping[str, Any] = {}
    query: type[Struct] | None = None
    headers: tuple[str, ...] = ()
    body: type[Struct] | None = None
    answers: Mapping[int, Any] = {}
    events: tuple[type[Struct], ...] = ()
    errors: tuple[type[RbeeError], ...] = ()
    error_body: Callable[[RbeeError], Any] | None = None
    media: str = "application/json"
    stream: str = ""

    @property
    def plain_path(self) -> str:
        """The path with bare names of its parameters: ``/v1/models/{reference}``."""
        return PARAMETER.sub(r"{\1}", self.path)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the path's parameters."""
        return tuple(PARAMETER.findall(self.path))


READ_TIMEOUT_S: web.AppKey[float] = web.AppKey("read_timeout_s", float)
TABLE: web.AppKey[tuple[Route, ...]] = web.AppKey("table", tuple)
SERVED: web.AppKey[dict[web.AbstractRoute, Route]] = web.AppKey("served", dict)


def application(
    rows: Sequence[Route],
    owners: Iterable[object],
    *,
    middlewares: Sequence[Any],
    body_limit_bytes: int,
    read_timeout_s: float = 30.0,
) -> web.Application:
    """Return an application that serves `rows`, each by the owner whose class has its handler.

    `read_timeout_s` is for a whole body.
    """
    by_class = {type(owner): owner for owner in owners}
    app = web.Application(middlewares=middlewares, client_max_size=body_limit_bytes)
    app.on_response_prepare.append(front.sign)
    app[TABLE] = tuple(rows)
    app[READ_TIMEOUT_S] = read_timeout_s
    served = app[SERVED] = {}
    for row in rows:
        handler = _bind(row, by_class)
        # HTTP wants HEAD wherever there is GET; a stream has no length to tell.
        for method in ("GET", "HEAD") if row.method == "GET" and not row.events else (row.method,):
            served[app.router.add_route(method, row.path, handler, expect_handler=_expected)] = row
    return app


def row_of(request: web.Request) -> Route | None:
    """Return the row that `request` came by; None where nothing is served."""
    return request.app[SERVED].get(request.match_info.route)


def read_query(request: web.Request, shape: type[T]) -> T:
    """Return the query as `shape`; an empty value counts as none. Raises `InvalidRequest`."""
    given = [(name, value) for name, value in request.query.items() if value]
    values = dict(given)
    if len(values) < len(given):
        raise InvalidRequest("The query names a parameter twice")
    try:
        return msgspec.convert(values, shape, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"Invalid request: {error}") from None


async def _expected(request: web.Request) -> None:
    """Refuse what a client expects beyond "100-continue", which it gets when its body is read."""
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed


def _bind(row: Route, owners: Mapping[type, object]) -> Handler:
    name = row.handler.__name__
    handler: Handler = next(getattr(owner, name) for cls, owner in owners.items() if vars(cls).get(name) is row.handler)
    if not row.parameters:
        return handler

    async def checked(request: web.Request) -> web.StreamResponse:
        for parameter, shape in row.parameters.items():
            wire.check(request.match_info[parameter], shape)
        return await handler(request)

    return checked
