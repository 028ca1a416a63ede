"""The error tree: drawn as it is, one code a class, and the codes that the contract names."""

import re
from collections import Counter
from copy import copy

import msgspec
import pytest

from rbee_core import errors, wire
from rbee_core.errors import (
    AllSlotsBusy,
    BackendNotAvailable,
    InvalidRequest,
    RbeeError,
    RemoteError,
    error_classes,
    shorten,
)

DRAWN = re.compile(r"^    (?:[├└]── )?(?P<name>[A-Z]\w+) +(?P<code>[A-Z_]+) +(?P<status>\d+)(?:  exit (?P<exit>\d+))?$")
CLASSES = {cls.__name__: cls for cls in error_classes()}

# The contract's table: code and HTTP status.
CONTRACT = {
    "INVALID_REQUEST": 400,
    "INVALID_API_KEY": 401,
    "ACCESS_DENIED": 403,
    "MODEL_NOT_FOUND": 404,
    "PROMPT_TOO_LONG": 400,
    "PAYLOAD_TOO_LARGE": 413,
    "DEADLINE_EXCEEDED": 408,
    "VERSION_MISMATCH": 409,
    "ALL_SLOTS_BUSY": 503,
    "BACKEND_NOT_AVAILABLE": 503,
    "WORKER_CRASHED": 502,
    "LOADING_TIMEOUT": 504,
    "DOWNLOAD_FAILED": 502,
    "CHECKSUM_MISMATCH": 502,
    "INSUFFICIENT_RAM": 507,
    "VRAM_EXHAUSTED": 507,
    "INSUFFICIENT_DISK": 507,
    "REQUEST_CANCELED": 499,
    "INTERNAL": 500,
}


def drawn() -> dict[str, tuple[str, int, int]]:
    """Return name: (code, status, exit code) of every line of the tree in the module's docstring."""
    lines = [DRAWN.match(line) for line in (errors.__doc__ or "").splitlines()]
    return {m["name"]: (m["code"], int(m["status"]), int(m["exit"] or 1)) for m in lines if m}


def test_the_drawn_tree_is_the_tree() -> None:
    real = {name: (cls.code, cls.http_status, cls.exit_code) for name, cls in CLASSES.items()}
    assert drawn() == real
    assert "└── RemoteError" in (errors.__doc__ or "")


def test_codes_are_unique() -> None:
    assert [code for code, n in Counter(cls.code for cls in CLASSES.values()).items() if n > 1] == []


@pytest.mark.parametrize(("code", "status"), CONTRACT.items())
def test_the_contract_s_codes_exist(code: str, status: int) -> None:
    assert {cls.http_status for cls in CLASSES.values() if cls.code == code} == {status}


def test_exit_codes() -> None:
    unusual = {cls.code: cls.exit_code for cls in CLASSES.values() if cls.exit_code != 1}
    assert unusual == {
        "INVALID_REQUEST": 2,
        "NOT_SUPPORTED": 2,
        "PAYLOAD_TOO_LARGE": 2,
        "PROMPT_TOO_LONG": 2,
        "REQUEST_CANCELED": 130,
        "ALL_SLOTS_BUSY": 75,
        "TOO_MANY_DOWNLOADS": 75,
        "OVERLOADED": 75,
    }


@pytest.mark.parametrize("cls", CLASSES.values())
def test_every_class_says_when_it_is_raised(cls: type[RbeeError]) -> None:
    assert (cls.__doc__ or "").startswith(("Raised ", "Root of the tree"))


def test_the_wire_s_body() -> None:
    error = InvalidRequest("No", hint="do that", field="seed")
    details = {"field": "seed", "hint": "do that"}
    assert error.body() == {
        "error": {"code": "INVALID_REQUEST", "message": "No", "details": details, "http_status": 400}
    }


def test_a_remote_error_keeps_what_the_other_side_said() -> None:
    busy = RemoteError(code="ALL_SLOTS_BUSY", message="Full", http_status=503, details={"slots": 1, "hint": "wait"})
    assert (busy.code, busy.http_status, busy.exit_code, busy.hint) == ("ALL_SLOTS_BUSY", 503, 75, "wait")
    assert busy.body()["error"]["details"] == {"slots": 1, "hint": "wait"}
    unknown = RemoteError(code="FROM_THE_FUTURE", message="?", http_status=418, details={})
    assert (unknown.code, unknown.exit_code) == ("FROM_THE_FUTURE", 1)


def travelled(error: RbeeError) -> RemoteError:
    """Return what arrives when `error` is sent."""
    return RemoteError.of(msgspec.json.decode(wire.encode(error.body()), type=wire.ErrorBody).error)


@pytest.mark.parametrize("cls", CLASSES.values())
def test_an_error_arrives_as_it_was_raised(cls: type[RbeeError]) -> None:
    sent = cls.__new__(cls)
    RbeeError.__init__(sent, "No", hint="do that", need=1)
    once, twice = travelled(sent), travelled(travelled(sent))
    for arrived in (once, twice):
        assert (arrived.code, arrived.http_status, arrived.exit_code) == (cls.code, cls.http_status, cls.exit_code)
        assert (arrived.message, arrived.hint, arrived.details) == ("No", "do that", {"need": 1})


@pytest.mark.parametrize(
    ("code", "said", "answer", "status"),
    [
        ("ALL_SLOTS_BUSY", 507, 404, 507),
        ("ALL_SLOTS_BUSY", None, 404, 404),
        ("ALL_SLOTS_BUSY", None, None, 503),
        ("FROM_THE_FUTURE", None, None, 500),
    ],
)
def test_where_the_status_of_a_remote_error_comes_from(
    code: str, said: int | None, answer: int | None, status: int
) -> None:
    told = wire.ErrorObject(code=code, message="No", http_status=said)
    assert RemoteError.of(told, answer).http_status == status


def test_a_copy_is_equal_and_shares_nothing_that_raising_writes_into() -> None:
    kept = BackendNotAvailable(backend="mlx", why="no", available=["cpu"])
    kept.__cause__ = OSError("why")
    caught: list[BackendNotAvailable] = []
    for _ in range(2):
        with pytest.raises(BackendNotAvailable) as raised:
            raise copy(kept)
        caught.append(raised.value)
    first, second = caught
    assert kept.__traceback__ is None
    assert first.__traceback__ is not second.__traceback__
    assert first.body() == second.body() == kept.body()
    assert (str(first), first.args, first.__cause__) == (str(kept), kept.args, kept.__cause__)
    first.details["more"] = 1
    assert "more" not in kept.details


def test_a_copy_of_a_remote_error_keeps_what_was_said() -> None:
    said = RemoteError(code="FROM_THE_FUTURE", message="?", http_status=418, details={"hint": "wait"})
    assert copy(said).body() == said.body()


@pytest.mark.parametrize("name", ["message", "hint", "self", "code", "http_status"])
def test_a_remote_error_survives_any_detail(name: str) -> None:
    error = RemoteError(code="X", message="m", http_status=500, details={name: "v"})
    assert error.message == "m"


def test_shown_texts_are_bounded_and_printable() -> None:
    assert shorten("a\x1b[2Jb\nc\ud800") == "a�[2Jb�c�"
    assert len(shorten("x" * 5000)) == 200
    assert "\n" not in str(InvalidRequest.bad_reference("a\n" * 500, "no"))


def test_b2_what_a_stranger_named_is_escaped_in_every_error() -> None:
    evil = "\x1b]0;PWNED\x07\r\nerror: \udcff"
    error = RbeeError(evil, hint=evil)
    assert error.message == error.hint == str(error) == r"\x1b]0;PWNED\x07\r\nerror: \udcff"
    assert RemoteError(code="INTERNAL", message=evil, http_status=500, details={}).message == error.message
    assert copy(error).message == error.message
    assert RbeeError("grün 蜂").message == "grün 蜂"


@pytest.mark.parametrize(
    ("slots", "busy", "waiting", "message"),
    [
        (2, 2, 0, "All slots are busy (2 of 2)"),
        (2, 2, 1, "All slots are busy (2 of 2), and 1 request waits already"),
        (0, 0, 64, "No worker has a slot yet, and 64 requests wait already"),
    ],
)
def test_a_full_queue_is_told_in_true_words(slots: int, busy: int, waiting: int, message: str) -> None:
    assert AllSlotsBusy(slots=slots, busy=busy, waiting=waiting).message == message
