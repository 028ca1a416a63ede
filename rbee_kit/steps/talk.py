"""Steps about people who are receiving a text while something happens."""

import signal
import time

from pytest_bdd import given, parsers, then, when

from rbee_kit.asking import UNTIL_KILLED, Asking
from rbee_kit.loaded import Loaded
from rbee_kit.program import Program, sentence
from rbee_kit.waiting import eventually

FIRST_WORD_S = 60.0
# The second is the engine's; this is what a program takes to send a signal on, and a loaded machine to notice.
ON_THE_WAY_S = 0.5
LEAVING = {"cancel": signal.SIGINT, "are gone": signal.SIGKILL}


@given("somebody is receiving a long text", target_fixture="program")
def receiving(asking: Asking) -> Program:
    program = asking.start("--max-tokens", UNTIL_KILLED)
    eventually(lambda: program.stdout or not program.running(), FIRST_WORD_S, what="the first word")
    assert program.stdout, f"no text came: {sentence(program.stderr)}"
    return program


@given("somebody waits for a long prompt to be read", target_fixture="program")
def waiting(loaded: Loaded, asking: Asking) -> Program:
    program = asking.start("--max-tokens", UNTIL_KILLED, prompt=loaded.long_prompt())

    def begun() -> bool:
        return not program.running() or loaded.hive.client.worker(loaded.worker.worker_id).active > 0

    eventually(begun, FIRST_WORD_S, what="the prompt is being read")
    return program


@given("somebody has cancelled a long text")
def has_cancelled(asking: Asking, loaded: Loaded) -> None:
    program = receiving(asking)
    leave(program, "cancel")
    program.finish()
    # Nothing may be asked of the engine until the text is asked for again: the next request alone may be spoilt.
    eventually(lambda: not loaded.hive.client.worker(loaded.worker.worker_id).active, FIRST_WORD_S, what="it is over")


@when(parsers.re(r"they (?P<how>cancel|are gone)"), target_fixture="left_at")
def leave(program: Program, how: str) -> float:
    if program.running():
        program.signal(LEAVING[how])
    return time.monotonic()


@when("two people ask for a long text", target_fixture="programs")
def two_ask(asking: Asking, loaded: Loaded) -> list[Program]:
    assert loaded.worker.slots >= 2, "a worker has one slot"
    return [asking.start("--max-tokens", UNTIL_KILLED) for _ in range(2)]


@then("both receive text while neither has ended")
def both_receive(programs: list[Program]) -> None:
    def both() -> bool:
        return all(p.stdout for p in programs) or not all(p.running() for p in programs)

    eventually(both, FIRST_WORD_S, what="both have text")
    assert all(p.running() for p in programs), "one had ended before the other began"
    for program in programs:
        program.signal(signal.SIGINT)
        program.finish()


@then(parsers.re(r"the slot is free within (?P<seconds>\d+) second"), converters={"seconds": int})
def slot_is_free(loaded: Loaded, left_at: float, seconds: int) -> None:
    busy_for_s = loaded.busy_for_s(left_at)
    assert busy_for_s <= seconds + ON_THE_WAY_S, (
        f"{busy_for_s:.1f} s after nobody waited for it any more a text still held its slot, {seconds} s are allowed: "
        "does `generate` look at `cancel` before every token and every piece of the prompt?"
    )


@then("the reader is told that the worker crashed")
def told_of_crash(program: Program) -> None:
    result = program.finish()
    assert result.exit_code == 1, f"exit code {result.exit_code}: {result.why}"
    assert "SIGKILL" in result.stderr, result.why


@then("what was received is kept")
def received_is_kept(program: Program) -> None:
    assert program.stdout.split()
    assert program.stdout.endswith("\n")
