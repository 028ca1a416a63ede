"""The two middlewares of every server of ours: who may talk to us, and how errors look.

Each is built from plain values by the composition root; neither knows the application behind it.
"""

import hashlib
import hmac
import ipaddress
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from rbee_core import wire
from rbee_core.descriptors import is_shortage
from rbee_core.errors import (
    AccessDenied,
    InvalidApiKey,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    PayloadTooLarge,
    RbeeError,
    RequestCanceled,
    RouteNotFound,
    UnsupportedMediaType,
)
from rbee_core.http import front
from rbee_core.http.routes import KEYLESS, Handler, Route, row_of
from rbee_core.http.stream import ReaderGoneError

LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
ADMITTED = web.RequestKey("admitted", bool)  # whether a request has the server's key, or needs none
STORY_LINES = 20

log = logging.getLogger(__name__)


def error_response(error: RbeeError, row: Route | None = None, name: str = "") -> web.Response:
    """Return `error` with its status: in the envelope, or as the dialect of `row` says errors.

    A dialect whose errors name the request leaves ``request_id`` open, for `name`.
    """
    headers = {"Retry-After": str(error.details.get("retry_after_s", 1))} if error.http_status == 503 else {}
    if row is None or row.error_body is None:
        return json_response(error.body(), status=error.http_status, headers=headers)
    if not error.mends:
        headers["x-should-retry"] = "false"  # else clients' libraries ask again after every 408 and 5xx
    body = row.error_body(error)
    if "request_id" in body:
        body["request_id"] = name
    return json_response(body, status=error.http_status, headers=headers)


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a struct or plain value as JSON."""
    return web.Response(body=wire.encode(body), status=status, headers=headers, content_type="application/json")


def envelope(body_limit_bytes: int, story: Callable[[], Sequence[str]] = tuple) -> Any:
    """Build the middleware that turns everything raised into the error envelope.

    What is no `RbeeError`, nor a shortage of the system's, is our bug: the client gets an id that is in the log, and,
    if `access` admitted it, the last lines of `story`: what the program was doing.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        row = row_of(request)
        try:
            return await handler(request)
        except RbeeError as error:
            return error_response(error, row, front.name_of(request))
        except ReaderGoneError:
            return web.Response(status=RequestCanceled.http_status)  # for the record: nobody is there to read it
        except web.HTTPRequestEntityTooLarge:
            return error_response(PayloadTooLarge(limit_bytes=body_limit_bytes), row, front.name_of(request))
        except web.HTTPException as error:
            return http_error(request, error)
        except Exception as error:  # noqa: BLE001  # the edge: whatever is left is told and logged
            told = bool(request.get(ADMITTED))
            bug = unforeseen(f"{request.method} {request.path}", error, story(), told=told)
            return error_response(bug, row, front.name_of(request))

    return middleware


def unforeseen(where: str, error: Exception, story: Sequence[str] = (), *, told: bool = True) -> RbeeError:
    """Log what no code here raised on purpose, with what came before it, and return what is said about it.

    The end of the `story` is said too, if it is to be `told`.
    """
    if is_shortage(error):
        log.warning("%s: %s", where, error)
        return Overloaded.by_system(error)
    error_id = secrets.token_hex(6)
    log.error("error %s in %s", error_id, where, exc_info=error)
    if story:
        log.error("before error %s: %s", error_id, "; ".join(story))
    details = {"story": list(story[-STORY_LINES:])} if story and told else {}
    hint = f"please report it with the log's lines around {error_id}"
    return RbeeError("rbee has a bug", hint=hint, error_id=error_id, **details)


def as_told(request: web.Request, error: Exception) -> RbeeError:
    """Return what a stream that has begun is told: of a bug of ours too, as nobody behind could say it any more."""
    return error if isinstance(error, RbeeError) else unforeseen(f"{request.method} {request.path}", error)


def http_error(request: web.BaseRequest, error: web.HTTPException) -> web.Response:
    """Return the answer to what aiohttp refused before a handler of ours was reached, in the envelope."""
    if isinstance(error, web.HTTPNotFound):
        return error_response(RouteNotFound(f"There is no {request.method} {request.path}"))
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        answer = error_response(MethodNotAllowed(method=request.method, path=request.path, allowed=allowed))
        answer.headers["Allow"] = ", ".join(allowed)
        return answer
    found = InvalidRequest(f"{error.reason}: {request.method} {request.path}")
    found.http_status = error.status
    return error_response(found)


def counting(count: Callable[[str, str, int], None], other: str) -> Any:
    """Build the middleware, the outermost, that has every answer counted: method and path of its row, and status.

    `other` stands for both where nothing is served. A client that left before its answer counts as 499.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        status = RequestCanceled.http_status
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            row = row_of(request)
            count(row.method if row else other, row.plain_path if row else other, status)

    return middleware


def access(*, names: Iterable[str] = (), key: str = "", origins: Sequence[str] = ()) -> Any:
    """Build the middleware that checks Host, Origin, key and content type, in this order.

    `names` are further host names, besides the loopback ones, under which this server may be addressed: a page in a
    browser that was led here by DNS carries another name. A page may ask whose origin is one of those names, or one of
    `origins`. With a `key`, every row whose scope is not keyless needs it, and so does what is not served at all.
    """
    hosts = LOCAL_NAMES | {_configured(name) for name in names if name}
    wanted = _digest(key) if key else b""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _host_name(request.headers.get("Host", "")) not in hosts:
            raise AccessDenied("The Host header names another server", hint="address the hive by its own name")
        origin = request.headers.get("Origin")
        front.name_of(request)
        if origin is not None:
            if _origin_host(origin) not in hosts and not front.is_listed(origin, origins):
                hint = "the setting cors_origins names the sites whose pages may ask"
                raise AccessDenied("Requests from web pages of other sites are refused", hint=hint)
            request[front.ORIGIN] = origin
            if front.is_preflight(request):
                return front.preflight(request)
        row = row_of(request)
        admitted = request[ADMITTED] = not wanted or _key_fits(request, wanted)
        if not admitted and (row is None or row.scope not in KEYLESS):
            raise InvalidApiKey
        if request.body_exists:
            _check_body(request)
        return await handler(request)

    return middleware


def _check_body(request: web.Request) -> None:
    """Refuse a body by what its headers say, before any of it is read."""
    if request.method in ("POST", "PUT") and request.content_type != "application/json":
        raise UnsupportedMediaType
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaType.encoded(encoding)
    if (request.content_length or 0) > request.client_max_size:
        raise PayloadTooLarge(limit_bytes=request.client_max_size)


def _configured(name: str) -> str:
    """Return a name from the settings as `_host_name` returns it: lower-case, an IPv6 address in brackets."""
    return _canonical(f"[{name}]" if ":" in name and not name.startswith("[") else name)


def _canonical(name: str) -> str:
    """Return `name` in lower case, and an address in brackets in its shortest spelling."""
    if not (name.startswith("[") and name.endswith("]")):
        return name.lower()
    try:
        return f"[{ipaddress.IPv6Address(name[1:-1]).compressed}]"
    except ValueError:
        return name.lower()


def _host_name(host: str) -> str:
    """Return the canonical name in ``name:port`` or ``[v6]:port``; "" if it is malformed."""
    name, colon, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    if not colon:
        name, port = host, "0"
    return _canonical(name) if port.isascii() and port.isdigit() else ""


def _origin_host(origin: str) -> str:
    try:
        return _host_name(urlsplit(origin).netloc)
    except ValueError:  # brackets that hold no address
        return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _key_fits(request: web.Request, wanted: bytes) -> bool:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    shown = [key.strip()] if scheme.lower() == "bearer" else []
    shown += request.headers.getall("x-api-key", [])
    return any(hmac.compare_digest(_digest(one), wanted) for one in shown)
