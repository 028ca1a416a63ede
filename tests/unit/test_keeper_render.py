"""What a person sees: phase lines on stderr, text on stdout."""

import io

from rbee_core.errors import RbeeError
from rbee_core.keeper.screen.output import TextOut
from rbee_core.keeper.screen.phases import PhaseLog
from rbee_core.keeper.screen.render import Screen, wants_colour
from rbee_core.keeper.screen.show import plain_columns


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(**how: bool) -> tuple[io.StringIO, PhaseLog]:
    stream = io.StringIO()
    ticks = iter(range(1000))
    return stream, PhaseLog(Screen(stream, **how), clock=lambda: float(next(ticks)))


def run_two_phases(phases: PhaseLog) -> None:
    with phases.phase("2"):
        phases.say("✓ Pool health: healthy (version 0.1.0)")
    with phases.phase("7"):
        phases.wait("Waiting for worker ready...")
        phases.screen.tick()
        phases.screen.tick()
        phases.over("✓ Worker ready!")


def test_phases_are_shown_as_the_product_promises() -> None:
    stream, phases = shown()

    run_two_phases(phases)

    assert stream.getvalue() == (
        "[Phase 2] ✓ Pool health: healthy (version 0.1.0)\n[Phase 7] Waiting for worker ready..... ✓ Worker ready!\n"
    )


def test_phases_are_kept_with_their_duration() -> None:
    _, phases = shown()

    run_two_phases(phases)

    assert phases.as_data() == [
        {
            "phase": "2",
            "name": "Pool preflight",
            "duration_ms": 1000,
            "detail": "Pool health: healthy (version 0.1.0)",
        },
        {"phase": "7", "name": "Worker health check", "duration_ms": 1000, "detail": "Worker ready!"},
    ]


def test_failed_phase_names_number_sentence_hint_and_log() -> None:
    stream, phases = shown()
    with phases.phase("7"):
        phases.wait("Waiting for worker ready...")

    phases.failed(RbeeError("It broke", hint="mend it"), "/logs/worker-1.log")

    assert stream.getvalue() == (
        "[Phase 7] Waiting for worker ready...\n[Phase 7] ✗ It broke\nhint: mend it\nlog: /logs/worker-1.log\n"
    )


def test_failure_before_any_phase_is_a_plain_error() -> None:
    stream, phases = shown()

    phases.failed(RbeeError("It broke"), "")

    assert stream.getvalue() == "error: It broke\n"


def test_quiet_shows_failures_only() -> None:
    stream, phases = shown(silent=True)

    run_two_phases(phases)
    phases.failed(RbeeError("It broke"), "")

    assert stream.getvalue() == "[Phase 7] ✗ It broke\n"


def test_json_shows_nothing() -> None:
    stream, phases = shown(mute=True)

    run_two_phases(phases)
    phases.failed(RbeeError("It broke"), "")

    assert not stream.getvalue()


def test_long_load_shows_how_far_it_is_and_does_not_fill_the_screen() -> None:
    stream, phases = shown()
    with phases.phase("7"):
        phases.wait("Waiting")
        for step in range(1000):
            phases.screen.tick(step / 1000)

    text = stream.getvalue()

    assert "50%" in text
    assert text.count(".") < 140


def test_colour_is_for_terminals_whose_owner_wants_it() -> None:
    assert wants_colour(Terminal(), {})
    assert not wants_colour(Terminal(), {"NO_COLOR": "1"})
    assert not wants_colour(Terminal(), {"TERM": "dumb"})
    assert not wants_colour(io.StringIO(), {})


def test_text_is_written_token_by_token_and_ends_with_one_newline() -> None:
    stream = io.BytesIO()
    out = TextOut(stream)

    out.write("Grüß ")
    assert stream.getvalue() == "Grüß ".encode()
    out.write("Gott 🐝")
    out.finish()
    out.finish()

    assert stream.getvalue() == "Grüß Gott 🐝\n".encode()


def test_text_that_ends_well_or_is_empty_is_left_alone() -> None:
    for text in ("done\n", ""):
        stream = io.BytesIO()
        out = TextOut(stream)
        out.write(text)
        out.finish()
        assert stream.getvalue() == text.encode()


def test_lone_surrogate_does_not_lose_the_answer() -> None:
    stream = io.BytesIO()

    TextOut(stream).write("a\ud83db")

    assert stream.getvalue() == b"a?b"


def test_text_for_json_is_kept_and_not_written() -> None:
    out = TextOut(None)

    out.write("a")
    out.write("b")
    out.finish()

    assert out.text == "ab"


def test_columns_line_up() -> None:
    assert plain_columns([("A", "LONG", "X"), ("aaa", "b", "")]) == ["A    LONG  X", "aaa  b"]
