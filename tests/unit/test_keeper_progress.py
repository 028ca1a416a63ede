"""Progress where nobody can watch a bar: a line now and then, never a flood."""

import io

import pytest

from rbee_core.keeper.screen.progress import Lines, showing, time_words
from rbee_core.keeper.screen.render import Screen


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(steps: list[tuple[float, int]], total: int = 1000_000_000) -> list[str]:
    stream, clock = io.StringIO(), iter([0.0, *(at for at, _ in steps)])
    lines = Lines(Screen(stream), "[Phase 3] ", lambda: next(clock))
    for _, done in steps:
        lines.show(done, total)
    return stream.getvalue().splitlines()


def test_each_tenth_has_its_line() -> None:
    steps = [(float(n), n * 50_000_000) for n in range(21)]

    shown = lines_of(steps)

    assert shown[0] == "[Phase 3] 100 MB of 1.0 GB (10%), 50 MB/s, 18 s left"
    assert len(shown) == 10


def test_slow_transfer_is_told_every_few_seconds() -> None:
    shown = lines_of([(float(n), n * 1_000_000) for n in range(21)])

    assert [line.split("(")[1].split(")")[0] for line in shown] == ["0%", "1%", "2%", "2%"]


def test_fast_transfer_is_no_flood() -> None:
    assert lines_of([(n / 1000, n * 10_000_000) for n in range(100)]) == []


def test_speed_counts_what_came_now_not_what_was_here() -> None:
    shown = lines_of([(0.0, 800_000_000), (10.0, 900_000_000)])

    assert shown[-1] == "[Phase 3] 900 MB of 1.0 GB (90%), 10 MB/s, 10 s left"


def test_nothing_at_all_is_whole() -> None:
    assert lines_of([(6.0, 0)], total=0) == ["[Phase 3] 0 kB of 0 kB (100%)"]


def test_quiet_is_quiet() -> None:
    stream = Terminal()
    with showing(Screen(stream, silent=True), "") as show:
        show(1, 2)

    assert stream.getvalue() == ""


def test_terminal_gets_a_bar_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with showing(Screen(stream), "[Phase 3] ") as show:
        show(49_000_000, 98_000_000)

    shown = stream.getvalue()
    assert "[Phase 3]" in shown
    assert "50%" in shown
    assert "49.0/98.0 MB" in shown


@pytest.mark.parametrize(("seconds", "words"), [(0.72, "0.7 s"), (70, "70 s"), (185, "3:05 min"), (7800, "2:10 h")])
def test_times_are_told_for_people(seconds: float, words: str) -> None:
    assert time_words(seconds) == words
