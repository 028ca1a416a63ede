"""Who may talk to a server of ours, and how it says no: a real server on loopback, raw requests."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from rbee_core import wire
from rbee_core.errors import AllSlotsBusy
from rbee_core.http.bind import bind
from rbee_core.http.body import read_body
from rbee_core.http.listen import serving
from rbee_core.http.middleware import access, envelope
from rbee_core.http.routes import Route, Scope, application

KEY = "k" * 32
BODY = b'{"prompt": "hi"}'


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


class Owner:
    async def fine(self, request: web.Request) -> web.Response:
        return web.json_response({"path": request.path})

    async def take(self, request: web.Request) -> web.Response:
        wanted = await read_body(request, wire.InferenceRequest)
        return web.json_response({"prompt": wanted.prompt})

    async def busy(self, request: web.Request) -> web.Response:
        raise AllSlotsBusy(slots=1, busy=1)

    async def bug(self, request: web.Request) -> web.Response:
        raise ZeroDivisionError("internal affairs")


def row(method: str, path: str, handler: Any, scope: Scope = Scope.READ, **more: Any) -> Route:
    return Route(method=method, path=path, handler=handler, scope=scope, summary="", **more)


ROWS = [
    row("GET", "/v1/health", Owner.fine, Scope.OPEN),
    row("POST", "/v1/callback", Owner.take, Scope.WORKER),
    row("GET", "/x", Owner.fine),
    row("POST", "/x", Owner.take, Scope.INFER),
    row("DELETE", "/x/{request_id}", Owner.fine, Scope.ADMIN, parameters={"request_id": wire.RequestId}),
    row("GET", "/busy", Owner.busy),
    row("GET", "/bug", Owner.bug),
    row("GET", "/open-bug", Owner.bug, Scope.OPEN),
    row(
        "POST", "/foreign", Owner.take, Scope.INFER, error_body=lambda error: {"error": f"in their words: {error.code}"}
    ),
    row("GET", "/foreign-busy", Owner.busy, error_body=lambda error: {"error": f"in their words: {error.code}"}),
]


def ask(
    raw: bytes,
    *,
    api_key: str = "",
    names: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    story: Callable[[], list[str]] = list,
) -> Answer:
    """Return what a server answers to these bytes."""

    async def talk() -> bytes:
        doors = [envelope(1000, story), access(names=names, key=api_key, origins=origins)]
        app = application(ROWS, [Owner()], middlewares=doors, body_limit_bytes=1000)
        async with serving(app, bind("127.0.0.1", 0)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            await writer.wait_closed()
            return answer

    head, _, body = asyncio.run(talk()).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(status.split()[1]), headers, body)


def request(method: str = "GET", path: str = "/x", body: bytes = b"", **headers: str | None) -> bytes:
    """Return a request; underscores in header names stand for dashes, None leaves one out."""
    fields: dict[str, str | None] = {"Host": "127.0.0.1", "Connection": "close"}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:80", "127.0.0.1:7835", "[::1]", "[::1]:7835"])
def test_our_own_names_are_ours(host: str) -> None:
    assert ask(request(Host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7835",
        "127.0.0.1.nip.io",
        "localhost.",
        "localhost.evil.example",
        "0.0.0.0",
        "2130706433",
        "127.1",
        "127.0.0.1@evil.example",
        "127.0.0.1:x",
        "127.0.0.1:",
        "[::1",
        "::1",
        "",
        "my-machine",
    ],
)
def test_other_names_are_refused(host: str) -> None:
    answer = ask(request(Host=host))
    assert answer.status in (400, 403)
    assert b'"path"' not in answer.body
    if answer.status == 403:
        assert answer.error["code"] == "ACCESS_DENIED"


def test_a_configured_name_is_ours() -> None:
    assert ask(request(Host="my-machine:7835"), names=("My-Machine", "")).status == 200
    assert ask(request(Host=""), names=("My-Machine", "")).status == 403


@pytest.mark.parametrize("configured", ["fd00::1", "FD00:0::1", "[fd00::1]"])
@pytest.mark.parametrize("host", ["[fd00::1]:7835", "[fd00::1]", "[FD00::0:1]:7835"])
def test_an_address_of_version_6_is_written_in_brackets(configured: str, host: str) -> None:
    assert ask(request(Host=host), names=(configured,)).status == 200
    assert ask(request(Host="[fd00::2]:7835"), names=(configured,)).status == 403


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"GET http://evil.example/x HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    ],
    ids=["no Host", "two Hosts", "absolute target"],
)
def test_a_missing_or_doubtful_host_is_refused(raw: bytes) -> None:
    assert ask(raw).status in (400, 403)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:3000", 200),
        ("http://localhost", 200),
        ("http://[::1]:1", 200),
        ("null", 403),
        ("", 403),
        ("https://evil.example", 403),
        ("http://127.0.0.1@evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://[", 403),
        ("http://[::1", 403),
        ("http://[nonsense]:80", 403),
        ("file://", 403),
    ],
)
def test_origin(origin: str | None, status: int) -> None:
    answer = ask(request(Origin=origin))
    assert answer.status == status
    assert answer.headers.get("access-control-allow-origin") == (origin if status == 200 else None)


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        (f"Bearer  {KEY} ", 200),
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer ключ", 401),
        ("Bearer \udcff\udcfe", 401),
        ("Bearer " + "k" * 6000, 401),
    ],
)
def test_the_key(authorization: str | None, status: int) -> None:
    answer = ask(request(Authorization=authorization), api_key=KEY)
    assert answer.status == status
    assert KEY.encode() not in answer.body
    if status == 401:
        assert answer.error["code"] == "INVALID_API_KEY"


def test_health_needs_no_key() -> None:
    assert ask(request(path="/v1/health"), api_key=KEY).status == 200
    assert ask(request(path="/v1/health", Host="evil.example"), api_key=KEY).status == 403


def test_a_route_that_workers_call_needs_no_key_of_the_server() -> None:
    assert ask(request("POST", "/v1/callback", BODY), api_key=KEY).status == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/x"), ("HEAD", "/x"), ("POST", "/x"), ("DELETE", "/x/r1")])
def test_every_other_scope_needs_the_key(method: str, path: str) -> None:
    body = BODY if method == "POST" else b""
    assert ask(request(method, path, body), api_key=KEY).status == 401
    assert ask(request(method, path, body, Authorization=f"Bearer {KEY}"), api_key=KEY).status == 200


def test_what_does_not_exist_needs_a_key_too() -> None:
    assert ask(request(path="/none"), api_key=KEY).status == 401


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        (None, 415),
    ],
)
def test_content_type(content_type: str | None, status: int) -> None:
    answer = ask(request("POST", body=BODY, Content_Type=content_type))
    assert answer.status == status
    if status == 415:
        assert "application/json" in answer.error["message"]


def test_a_body_over_the_limit() -> None:
    answer = ask(request("POST", body=b" " * 1001))
    assert (answer.status, answer.error["code"]) == (413, "PAYLOAD_TOO_LARGE")


def test_no_body() -> None:
    assert ask(request("POST")).error["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/none", 404, "NOT_FOUND"),
        ("GET", "/%ff%00", 404, "NOT_FOUND"),
        ("GET", "/%ED%A0%80", 404, "NOT_FOUND"),
        ("GET", "/../../etc/passwd", 404, "NOT_FOUND"),
        ("DELETE", "/x", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/x", 405, "METHOD_NOT_ALLOWED"),
        ("PROPFIND", "/x", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/x/a%20b", 400, "INVALID_REQUEST"),
        ("DELETE", "/x/..%2F..%2Fv1%2Fshutdown", 400, "INVALID_REQUEST"),
        ("GET", "/busy", 503, "ALL_SLOTS_BUSY"),
        ("GET", "/bug", 500, "INTERNAL"),
    ],
)
def test_the_envelope(method: str, path: str, status: int, code: str) -> None:
    answer = ask(request(method, path))
    assert (answer.status, answer.error["code"]) == (status, code)
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.error["message"]
    assert ("retry-after" in answer.headers) == (status == 503)
    assert answer.headers.get("allow") == ("GET, HEAD, POST" if status == 405 else None)


def test_our_own_bug_is_named_by_an_id_that_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = ask(request(path="/bug"))
    error_id = answer.error["details"]["error_id"]
    assert error_id in caplog.text
    assert "internal affairs" in caplog.text
    assert b"internal affairs" not in answer.body
    assert b"ZeroDivision" not in answer.body


def story() -> list[str]:
    return [f"line {number}" for number in range(100)]


def test_our_own_bug_is_told_with_what_came_before(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask(request(path="/bug"), story=story)
    assert answer.error["details"]["story"] == story()[-20:]
    assert "line 0; line 1; " in caplog.text
    assert "story" not in ask(request(path="/bug")).error["details"]


@pytest.mark.parametrize(("authorization", "told"), [(f"Bearer {KEY}", True), (None, False), ("Bearer no", False)])
def test_the_story_is_told_to_those_who_have_the_key(authorization: str | None, told: bool) -> None:
    answer = ask(request(path="/open-bug", Authorization=authorization), api_key=KEY, story=story)
    assert answer.status == 500
    assert ("story" in answer.error["details"]) == told


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /x HTTP/1.1\nHost: 127.0.0.1\n\n",
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\r\n b\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    ],
    ids=["bare LF", "two lengths of two kinds", "two lengths", "folded header", "NUL", "huge header", "TLS"],
)
def test_requests_that_parsers_disagree_about_are_refused(raw: bytes) -> None:
    assert ask(raw).status == 400


WANTED = "authorization, content-type, x-stainless-os, X-Stainless-Retry-Count, x-api-key, anthropic-version, x-odd"


def preflight(origin: str, **headers: str) -> bytes:
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": WANTED}
    return request("OPTIONS", "/x", Origin=origin, **asked, **headers)


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        ((), "http://localhost:3000", 204),
        ((), "https://chat.example", 403),
        (("https://chat.example",), "https://chat.example", 204),
        (("https://chat.example",), "http://chat.example", 403),
        (("https://chat.example",), "https://chat.example.evil.example", 403),
        (("*",), "https://chat.example", 204),
    ],
)
def test_a_browser_is_told_before_it_shows_a_key_what_a_page_may_send(
    origins: tuple[str, ...], origin: str, status: int
) -> None:
    answer = ask(preflight(origin), api_key=KEY, origins=origins)
    assert answer.status == status
    if status == 204:
        assert answer.headers["access-control-allow-origin"] == origin
        allowed = answer.headers["access-control-allow-headers"]
        assert allowed == WANTED.lower().removesuffix(", x-odd")
        assert "POST" in answer.headers["access-control-allow-methods"]
        assert ask(request(Origin=origin), api_key=KEY, origins=origins).status == 401, "it still needs the key"


def test_a_preflight_of_a_page_that_was_led_here_is_refused() -> None:
    assert ask(preflight("http://localhost", Host="evil.example")).status == 403
    assert ask(request("OPTIONS", "/x", Origin="http://localhost")).status == 405, "which asks nothing that we answer"


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ({"X_Api_Key": KEY}, 200),
        ({"X_Api_Key": "wrong"}, 401),
        ({"X_Api_Key": ""}, 401),
        ({"Authorization": "Basic x"}, 401),
    ],
)
def test_the_key_may_come_as_x_api_key(shown: dict[str, str], status: int) -> None:
    assert ask(request(**shown), api_key=KEY).status == status
    assert ask(request(**shown)).status == 200, "where there is no key, any will do"


def test_one_right_key_of_two_is_enough() -> None:
    assert ask(request(Authorization="Bearer none", X_Api_Key=KEY), api_key=KEY).status == 200


@pytest.mark.parametrize(("name", "taken"), [("abc-1_Z", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_a_request_has_a_name_which_its_answer_says(name: str, taken: bool) -> None:
    for path in ("/x", "/busy", "/none"):
        said = ask(request(path=path, X_Request_Id=name)).headers["x-request-id"]
        assert (said == name) == taken
        assert said


def test_a_row_may_say_errors_in_the_words_of_its_clients() -> None:
    wrong = ask(request("POST", "/foreign", b"{"))
    assert (wrong.status, wrong.error) == (400, "in their words: INVALID_REQUEST")
    assert wrong.headers["x-should-retry"] == "false"
    assert ask(request("POST", "/foreign"), api_key=KEY).error == "in their words: INVALID_API_KEY"
    assert ask(request("POST", "/foreign", b"x" * 1001)).error == "in their words: PAYLOAD_TOO_LARGE"
    busy = ask(request(path="/foreign-busy"))
    assert (busy.status, busy.error, busy.headers["retry-after"]) == (503, "in their words: ALL_SLOTS_BUSY", "1")
    assert "x-should-retry" not in busy.headers, "asking again may help"
