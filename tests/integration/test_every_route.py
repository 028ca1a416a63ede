"""Every row of the hive's table against a running hive: who may ask, and what is said to what is wrong."""

import http.client
import json
from typing import Any

import pytest

from rbee_core.hive.dialects.table import TABLE
from rbee_core.http.openapi import errors_of
from rbee_core.http.routes import Route, Scope
from rbee_kit.program import Hive, Home

KEY = "k" * 32
PLACES = {"worker_id": "worker-none", "request_id": "none", "reference": "file:%2Fno%0Ane"}


@pytest.fixture
def hive(home: Home) -> Hive:
    home.environment["RBEE_API_KEY"] = KEY
    return home.start_hive()


def ask(hive: Hive, row: Route, key: str = KEY, query: str = "", body: bytes | None = None) -> tuple[int, str, bytes]:
    """Return status, media type and the beginning of an answer."""
    path = row.plain_path.format(**PLACES)
    headers = {"Authorization": f"Bearer {key}"} | ({"Content-Type": "application/json"} if body is not None else {})
    connection = http.client.HTTPConnection("127.0.0.1", hive.port, timeout=30)
    try:
        connection.request(row.method, path + query, body, headers)
        answer = connection.getresponse()
        media = answer.headers.get("Content-Type", "")
        return answer.status, media, answer.readline() if "stream" in media else answer.read()
    finally:
        connection.close()


def code(answer: tuple[int, str, bytes]) -> tuple[int, str]:
    """Return status and code of an error, in our envelope or as Ollama's clients want it: a sentence, and our code."""
    status, media, body = answer
    assert "application/json" in media, answer
    said: dict[str, Any] = json.loads(body)
    if isinstance(said["error"], str):
        assert said["error"]
        return status, said["code"]
    assert said["error"]["message"]
    return status, said["error"]["code"]


def name(row: Route) -> str:
    return f"{row.method} {row.plain_path}"


def test_every_row_that_needs_the_key_refuses_another(hive: Hive) -> None:
    for row in TABLE:
        answer = ask(hive, row, "wrong", body=b"{}" if row.body else None)
        assert (answer[0] == 401) == (row.scope is not Scope.OPEN), name(row)
    assert hive.client.health().status == "alive"


def test_a_wrong_body_or_query_is_refused_before_anything_happens(hive: Hive) -> None:
    for row in TABLE:
        if row.body and row.scope is not Scope.WORKER:  # whose secret is asked for before a body is read
            for body in (b"", b"{", b"[]", b'{"no_such_key": 1}', b"\xff"):
                assert code(ask(hive, row, body=body)) == (400, "INVALID_REQUEST"), (name(row), body)
        if row.query:
            for query in ("?no_such_key=1", "?offset=x&id=&model=a&model=b", f"?{'x' * 20}=1"):
                assert code(ask(hive, row, query=query))[0] in (400, 404), (name(row), query)
    assert hive.client.list_workers() == []


def test_what_is_not_there_is_answered_with_a_code_that_the_row_names(hive: Hive) -> None:
    for row in TABLE:
        if row.names:
            answer = ask(hive, row, body=b'{"prompt": "x"}' if row.body else None)
            if answer[0] == 204 and row.answers.keys() == {204} and not row.errors:
                continue  # a request that nobody knows is as good as ended
            status, said = code(answer)
            assert status in (400, 404), name(row)
            assert said in {cls.code for cls in errors_of(row)} - {"NOT_FOUND"}, name(row)


def test_another_method_is_told_which_there_are(hive: Hive) -> None:
    for path in {row.plain_path for row in TABLE}:
        methods = {row.method for row in TABLE if row.plain_path == path}
        row = next(row for row in TABLE if row.plain_path == path)
        connection = http.client.HTTPConnection("127.0.0.1", hive.port, timeout=30)
        connection.request("PATCH", path.format(**PLACES), headers={"Authorization": f"Bearer {KEY}"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        connection.close()
        if answer.status == 405:
            assert body["error"]["code"] == "METHOD_NOT_ALLOWED"
            assert methods <= set(answer.headers["Allow"].split(", ")), name(row)
        else:
            pytest.fail(f"PATCH {path}: {answer.status}")


@pytest.mark.parametrize(("host", "status"), [("a.example", 200), ("b.example:7835", 200), ("c.example", 403)])
def test_blanks_between_allowed_hosts_do_not_count(home: Home, host: str, status: int) -> None:
    home.environment["RBEE_ALLOWED_HOSTS"] = " a.example, b.example "
    connection = http.client.HTTPConnection("127.0.0.1", home.start_hive().port, timeout=30)
    connection.request("GET", "/v1/health", headers={"Host": host})
    assert connection.getresponse().status == status
    connection.close()
