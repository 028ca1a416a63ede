"""What `rbee embed` refuses before anything is started, and what it asks for."""

import io
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from rbee_core.errors import InvalidRequest, PayloadTooLarge
from rbee_core.keeper.commands import embed
from rbee_core.settings import Settings

SETTINGS = Settings(home=Path("/nowhere"))
NOTHING_GIVEN: dict[str, Any] = {
    **dict.fromkeys(("file", "pooling", "backend", "device", "context", "timeout")),
    "texts": (),
    "own_length": False,
    "model": "smollm2",
    "node": "localhost",
    "lora": (),
}


def requests(**given: Any) -> list[Any]:
    return list(embed.requests_for({**NOTHING_GIVEN, **given}, SETTINGS))


def test_texts_and_the_lines_of_a_file_come_in_their_order(tmp_path: Path) -> None:
    file = tmp_path / "texts"
    file.write_text("one\n\n  \ntwo ways\n", encoding="utf-8")
    [request] = requests(texts=("first",), file=str(file), pooling="last", own_length=True)
    assert request.texts == ["first", "one", "two ways"]
    assert (request.pooling, request.normalize, request.model_ref) == ("last", False, "smollm2")


def test_only_the_end_of_a_line_ends_a_text(tmp_path: Path) -> None:
    lines = ["form\ffeed", "a\u2028b\u2029c\x85d\x1ce", "last"]
    for end in ("\n", "\r\n"):
        (tmp_path / "texts").write_bytes("".join(line + end for line in lines).encode())
        [request] = requests(file=str(tmp_path / "texts"))
        assert request.texts == lines


def test_texts_may_come_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a bee\nwax")))
    [request] = requests(file="-")
    assert request.texts == ["a bee", "wax"]


def test_many_texts_are_asked_for_in_parts() -> None:
    asked = requests(texts=tuple(f"number {number}" for number in range(embed.AT_ONCE + 2)))
    assert [len(request.texts) for request in asked] == [embed.AT_ONCE, 2]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"texts": ("a", " ")}, "A text is empty"),
        ({"file": "/no/such/file"}, "Invalid --file"),
        ({"texts": ("a",), "context": 0}, "Invalid --context"),
        ({"texts": ("a",), "timeout": -1.0}, "Invalid --timeout"),
        ({"texts": ("a",), "lora": ("/a:1000",)}, "Invalid --lora"),
    ],
)
def test_what_is_wrong_is_refused_by_the_name_of_its_option(given: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        requests(**given)


@pytest.mark.parametrize("timeout", [-1.0, math.nan, math.inf, 1e300])
def test_an_impossible_time_is_refused_before_it_begins(timeout: float) -> None:
    assert embed.embed.callback
    with pytest.raises(InvalidRequest, match="Invalid --timeout"):
        embed.embed.callback(**{**NOTHING_GIVEN, "texts": ("a",), "timeout": timeout, "as_json": False})


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bees \xff")
    with pytest.raises(InvalidRequest, match="not UTF-8 at byte 5"):
        requests(file=str(tmp_path / "a"))


def test_a_file_beyond_the_body_limit_is_refused_and_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=Path("/nowhere"), body_limit_bytes=9)
    (tmp_path / "a").write_bytes(b"a bee\nwax\n")
    stdin = io.BytesIO(b"a bee\n" * 9)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    for file in (str(tmp_path / "a"), "-"):
        with pytest.raises(PayloadTooLarge, match="9 bytes") as refused:
            list(embed.requests_for({**NOTHING_GIVEN, "file": file}, settings))
        assert refused.value.exit_code == 2
    assert stdin.tell() == 10
    (tmp_path / "a").write_bytes(b"a bee\nwax")
    [request] = embed.requests_for({**NOTHING_GIVEN, "file": str(tmp_path / "a")}, settings)
    assert request.texts == ["a bee", "wax"]


def test_a_stdin_that_was_closed_holds_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(click.UsageError, match="There is no text"):
        requests(file="-")


def test_no_text_is_a_wrong_use() -> None:
    with pytest.raises(click.UsageError, match="There is no text"):
        requests()
