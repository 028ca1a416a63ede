"""What every answer carries beside its body: the name of its request, and whether a page of that origin may read it.

Decides from headers alone; the middlewares ask it, and a signal writes what it decided.
"""

import re
import secrets
from collections.abc import Iterable

from aiohttp import web

REQUEST_ID = "X-Request-Id"
ANTHROPIC_VERSION = "anthropic-version"
NAME: web.RequestKey[str] = web.RequestKey("request_id", str)
ORIGIN: web.RequestKey[str] = web.RequestKey("origin", str)
ANY = "*"
MAX_AGE_S = 600
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADERS = frozenset(
    {"authorization", "content-type", "accept", "user-agent", "x-api-key", "x-request-id", "x-request-timeout"}
)
_FAMILIES = ("x-stainless-", "x-rbee-", "anthropic-", "openai-")
_READABLE = "X-Request-Id, request-id, X-Rbee-Worker, X-Rbee-Keep-Alive, Retry-After, x-should-retry"


def name_of(request: web.Request) -> str:
    """Return the request's name: what its client calls it, if that can be a name, else one that is made now."""
    if NAME not in request:
        said = request.headers.get(REQUEST_ID, "")
        request[NAME] = said if _NAME.fullmatch(said) else secrets.token_hex(8)
    return request[NAME]


def is_listed(origin: str, origins: Iterable[str]) -> bool:
    """Return whether an `Origin` is one of those that the settings name; ``*`` is every one."""
    return any(one in (ANY, origin) for one in origins)


def is_preflight(request: web.Request) -> bool:
    """Return whether a browser asks what a page may send. It shows no key then, and nothing happens."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def preflight(request: web.Request) -> web.Response:
    """Return what a page of an origin that is let in may send: of what it asks for, the headers that clients use."""
    asked = [name.strip().lower() for name in request.headers.get("Access-Control-Request-Headers", "").split(",")]
    allowed = [name for name in asked if name in _HEADERS or name.startswith(_FAMILIES)]
    headers = {
        "Access-Control-Allow-Methods": "GET, HEAD, POST, DELETE",
        "Access-Control-Allow-Headers": ", ".join(allowed),
        "Access-Control-Max-Age": str(MAX_AGE_S),
    }
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)


async def sign(request: web.Request, response: web.StreamResponse) -> None:
    """Write into an answer's headers what is known of its request. A signal: just before they are sent."""
    if NAME in request:
        response.headers[REQUEST_ID] = request[NAME]
        if ANTHROPIC_VERSION in request.headers:
            response.headers["request-id"] = request[NAME]  # where clients of that dialect look for it
    if ORIGIN in request:
        response.headers["Access-Control-Allow-Origin"] = request[ORIGIN]
        response.headers["Access-Control-Expose-Headers"] = _READABLE
        response.headers["Vary"] = "Origin"
