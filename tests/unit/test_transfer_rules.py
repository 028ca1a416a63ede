"""What an answer means, how long to wait, and where a redirect may lead: decisions, without a network."""

from datetime import UTC, datetime

import pytest

from rbee_core.backend.base import RemoteFile
from rbee_core.backend.redirects import distance_of, may_follow, origin_of
from rbee_core.errors import AccessDenied, DownloadFailed, ModelNotFound
from rbee_core.models.transfer_rules import (
    Again,
    Body,
    Refused,
    TransferOptions,
    Wrong,
    can_resume,
    delay_s,
    judge,
    lanes_may_pay,
    lanes_pay,
    request_headers,
    retry_after_s,
)

FILE = RemoteFile("a.gguf", "https://hub.example/a", 100, sha256="0" * 64)


def _judge(status: int, *, offset: int = 40, etag: str = '"e"', at_origin: bool = True, **headers: str) -> object:
    named = {k.replace("_", "-"): v for k, v in headers.items()}
    return judge(FILE, offset=offset, etag=etag, status=status, headers=named, at_origin=at_origin)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (_judge(206, content_range="bytes 40-99/100", etag='"e"'), Body(40, '"e"')),
        (_judge(200, content_length="100"), Body(0, "")),
        (_judge(206, content_range="bytes 41-99/100"), Again),
        (_judge(206), Again),
        (_judge(206, content_range="bytes 40-98/99"), Wrong),
        (_judge(200, content_length="101"), Wrong),
        (_judge(200, content_length="99"), Wrong),
        (_judge(200, content_encoding="gzip"), Refused),
        (_judge(416), Again),
        (_judge(416, offset=0), Refused),
        (_judge(429, retry_after="7"), Again("the server answered 429", "7")),
        (_judge(408), Again),
        (_judge(503), Again),
        (_judge(403, at_origin=False), Again),
        (_judge(304), Refused),
    ],
)
def test_answers(answer: object, expected: object) -> None:
    assert answer == expected if not isinstance(expected, type) else isinstance(answer, expected)


@pytest.mark.parametrize(
    ("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, ModelNotFound), (400, DownloadFailed)]
)
def test_refusals_are_typed(status: int, error: type[Exception]) -> None:
    answer = _judge(status)
    assert isinstance(answer, Refused)
    assert isinstance(answer.error, error)
    assert status not in (401, 403) or "HF_TOKEN" in answer.error.hint


def test_changed_etag_is_never_mixed() -> None:
    answer = judge(
        FILE,
        offset=40,
        etag='"e"',
        status=206,
        headers={"content-range": "bytes 40-99/100", "etag": '"f"'},
        at_origin=True,
    )
    assert answer == Again("the file changed on the server", from_zero=True)


def test_only_strong_etags_resume() -> None:
    assert can_resume('"abc"')
    assert not any(can_resume(e) for e in ("", "abc", 'W/"abc"', '"a"b"', '"a\r\nX: y"'))
    assert request_headers(5, '"e"')["Range"] == "bytes=5-"
    assert "Range" not in request_headers(0, "")


def test_delays_double_up_to_a_bound_and_honour_the_server() -> None:
    options = TransferOptions()
    assert [delay_s(n, options, jitter=1) for n in range(1, 8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 3.2]
    assert delay_s(1, options, jitter=1, retry_after_s=7) == 7
    assert delay_s(1, options, jitter=1, retry_after_s=86400) == 60


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_s("7", now) == 7
    assert retry_after_s("Thu, 01 Jan 2026 00:00:09 GMT", now) == 9
    assert retry_after_s("Wed, 31 Dec 2025 00:00:09 GMT", now) == 0
    assert retry_after_s("soon", now) is None
    assert retry_after_s("-1", now) is None
    assert retry_after_s("9" * 400, now) is None


_HOSTS = {
    "hub.example": ["8.8.8.8"],
    "cdn.example": ["1.1.1.1", "2606:4700::1111"],
    "meta.example": ["169.254.169.254"],
    "lan.example": ["192.168.1.5"],
    "nas.example": ["192.168.1.6"],
    "loop.example": ["127.0.0.1", "::1"],
    "mixed.example": ["8.8.8.8", "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "tail.example": ["100.64.0.1"],
}


@pytest.mark.parametrize(
    ("first", "target", "allowed"),
    [
        ("https://hub.example", "https://hub.example/other", True),
        ("https://hub.example", "https://cdn.example", True),
        ("https://hub.example", "http://hub.example", False),
        ("https://hub.example", "http://cdn.example", False),
        ("https://hub.example", "https://meta.example", False),
        ("https://hub.example", "https://lan.example", False),
        ("https://hub.example", "https://loop.example", False),
        ("https://hub.example", "https://mixed.example", False),
        ("https://hub.example", "https://mapped.example", False),
        ("https://hub.example", "https://tail.example", False),
        ("http://hub.example", "http://cdn.example", False),
        ("http://loop.example:1", "http://loop.example:2", True),
        ("https://loop.example", "http://loop.example", False),
        ("http://loop.example", "http://lan.example", False),
        ("http://loop.example", "http://meta.example", False),
        ("http://lan.example", "http://nas.example", True),
        ("http://lan.example", "http://meta.example", False),
        ("http://lan.example", "https://cdn.example", True),
    ],
)
def test_redirects(first: str, target: str, allowed: bool) -> None:
    assert may_follow(origin_of(first), origin_of(target), lambda host, _: _HOSTS[host]) is allowed


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://x/y", "/relative", "https://", "gopher://x", "http://x:99999/"]
)
def test_other_schemes_have_no_origin(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        origin_of(url)


def test_no_address_is_no_place_to_go() -> None:
    assert distance_of([]) == "forbidden"
    assert distance_of(["0.0.0.0"]) == "forbidden"
    assert distance_of(["fe80::1%eth0"]) == "forbidden"


@pytest.mark.parametrize(
    ("speed", "received", "left", "expected"),
    [(10e6, 8, 32, True), (10e6, 7, 32, False), (10e6, 8, 31, False), (99e6, 8, 32, True), (100e6, 8, 99, False)],
)
def test_more_connections_are_tried_for_long_files_on_slow_ones(
    speed: float, received: int, left: int, expected: bool
) -> None:
    assert lanes_may_pay(speed, received, left, TransferOptions(trial_bytes=8)) is expected


def test_more_connections_are_kept_for_a_fifth_more() -> None:
    assert lanes_pay(12.0, 10.0)
    assert not lanes_pay(11.9, 10.0)
