"""Log files: no text can forge a line, and no writer can fill the disk."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core.hive.processes import logs
from rbee_core.home import Home, WorkerNote, identify, write_note


@given(st.text())
def test_escaped_text_is_one_line_without_control_characters(text: str) -> None:
    escaped = logs.escape(text)
    assert len(escaped.splitlines()) <= 1
    assert not any(ord(c) < 32 and c != "\t" for c in escaped)
    assert not any(0x7F <= ord(c) < 0xA0 for c in escaped)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 蜂\t✓", "plain é 蜂\t✓"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb", "a\\r\\nb"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\u2028", "\\u2028"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert logs.escape(text) == expected


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """Put logging back as it was."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:], root.level = before, level
    logging.captureWarnings(False)


@pytest.mark.usefixtures("root_logger")
def test_a_message_cannot_forge_a_line(tmp_path: Path) -> None:
    path = tmp_path / "hive.log"
    logs.start_logging(path, 10_000, to_stderr=False)
    logging.getLogger("x").info("model %s", "a\n2026-01-01 INFO all is well\x1b[2J")
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("INFO model a\\n2026-01-01 INFO all is well\\x1b[2J")


@pytest.mark.usefixtures("root_logger")
def test_a_traceback_keeps_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "hive.log"
    logs.start_logging(path, 10_000, to_stderr=False)
    try:
        int("bad\x07\nthing")
    except ValueError:
        logging.getLogger("x").exception("oh")
    text = path.read_text()
    assert len(text.splitlines()) > 3
    assert "\x07" not in text


@pytest.mark.usefixtures("root_logger")
def test_the_hive_s_log_rotates(tmp_path: Path) -> None:
    path = tmp_path / "hive.log"
    logs.start_logging(path, 1000, to_stderr=False)
    for number in range(100):
        logging.getLogger("x").info("line %d %s", number, "x" * 50)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["hive.log", "hive.log.1", "hive.log.2"]
    assert all(f.stat().st_size <= 1000 for f in files)


def test_a_log_within_its_limit_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"a\nb\n")
    logs.bound(path, 4)
    assert path.read_bytes() == b"a\nb\n"


def test_an_over_long_log_keeps_its_last_half_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_text("".join(f"line {n}\n" for n in range(1000)))
    logs.bound(path, 1000)
    lines = path.read_text().splitlines()
    assert lines[0] == "[earlier lines were dropped]"
    assert lines[-1] == "line 999"
    assert all(line.startswith("line ") for line in lines[1:])
    assert path.stat().st_size <= 600


def test_a_writer_goes_on_at_the_end_of_a_bounded_log(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(fd, b"old\n" * 1000)
        logs.bound(path, 100)
        os.write(fd, b"new\n")
    finally:
        os.close(fd)
    assert path.read_bytes().endswith(b"old\nnew\n")
    assert b"\x00" not in path.read_bytes()


def test_one_line_without_end_is_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"x" * 10_000)
    logs.bound(path, 100)
    assert path.stat().st_size < 200


def test_a_log_that_is_gone_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    logs.bound(path, 100)
    assert logs.read(path, 0) == ([], 0)
    assert logs.tail(path) == ()


def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"one\ntwo\nhal")
    lines, offset = logs.read(path, 0)
    assert lines == ["one", "two"]
    with path.open("ab") as file:
        file.write(b"f\r\nthree\n")
    assert logs.read(path, offset) == (["half", "three"], path.stat().st_size)


def test_reading_a_log_that_was_cut_begins_again(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"one\n")
    assert logs.read(path, 1000) == (["one"], 4)


def test_reading_is_escaped_and_survives_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"\x1b[2J \xff\xfe\n")
    assert logs.read(path, 0)[0] == ["\\x1b[2J ��"]


def test_a_line_longer_than_one_read_does_not_stop_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"x" * (logs.READ_LIMIT * 2 + 5) + b"\nend\n")
    lines: list[str] = []
    offset = 0
    for _ in range(4):
        more, offset = logs.read(path, offset)
        lines += more
    assert lines[-1] == "end"
    assert sum(map(len, lines)) == logs.READ_LIMIT * 2 + 5 + 3


def test_the_tail(tmp_path: Path) -> None:
    path = tmp_path / "worker-1.log"
    path.write_bytes(b"".join(b"line %d\n\n" % n for n in range(1000)) + b"\x1b" + b"y" * 9000)
    tail = logs.tail(path, 5)
    assert tail[0] == "line 998"
    assert tail[-1].startswith("\\x1byyy")
    assert len(tail[-1]) == 500


@pytest.fixture
def five(tmp_path: Path) -> Home:
    """A home with the hive's log and those of five workers, 0 the newest."""
    place = Home(tmp_path)
    place.prepare()
    for age in range(5):
        path = place.worker_log(f"worker-{age}")
        path.write_text("x")
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    place.hive_log.write_text("x")
    return place


def left(place: Home) -> list[str]:
    return sorted(p.stem for p in place.logs_dir.iterdir())


def test_old_logs_are_removed(five: Home) -> None:
    logs.prune(five, 2)
    assert left(five) == ["hive", "worker-0", "worker-1"]


def test_the_log_of_a_live_worker_is_neither_removed_nor_counted(five: Home) -> None:
    me = identify(os.getpid())
    for worker_id in ("worker-0", "worker-4"):
        write_note(five.worker_note_path(worker_id), WorkerNote.of(me, me, "x"))
    logs.prune(five, 1)
    assert left(five) == ["hive", "worker-0", "worker-1", "worker-4"]


def test_logs_that_another_hive_removes_meanwhile_do_not_matter(five: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = Path.stat

    def removed_first(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name in ("worker-0.log", "worker-3.log"):
            path.unlink(missing_ok=True)
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", removed_first)
    logs.prune(five, 1)
    assert left(five) == ["hive", "worker-1"]
