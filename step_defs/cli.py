"""Steps about commands as such: running one, how it ended, what it said, what it left."""

import shlex
from pathlib import Path

from pytest_bdd import given, parsers, then, when

from step_defs.support import Home, Result

CONFIGURATIONS = {
    "is no TOML": "port = = 1",
    "sets an unknown name": "prot = 1",
    "sets words for a number": 'port = "many"',
}


@given(parsers.parse("a configuration that {says}"))
def configuration(home: Home, says: str) -> None:
    home.path.mkdir()
    (home.path / "config.toml").write_text(CONFIGURATIONS[says])


@given("an RBEE_HOME without write permission")
def read_only_home(home: Home) -> None:
    home.path.mkdir(mode=0o500)


@given("an RBEE_HOME that is a file")
def file_as_home(home: Home) -> None:
    Path(home.path).touch()


@when(parsers.parse('the command "{line}" is run'), target_fixture="result")
def run_command(home: Home, line: str) -> Result:
    return home.start(*shlex.split(line)).finish()


@then("it succeeds")
def succeeds(result: Result) -> None:
    assert result.exit_code == 0, result.stderr


@then(parsers.parse("it is refused with exit code {code:d}"))
def refused(result: Result, code: int) -> None:
    assert result.exit_code == code, result.stderr


@then(parsers.parse('it says "{words}"'))
def says(result: Result, words: str) -> None:
    assert words in result.stdout + result.stderr


@then(parsers.parse('it does not say "{words}"'))
def does_not_say(result: Result, words: str) -> None:
    assert words not in result.stdout + result.stderr


@then("the reason is one sentence with a hint")
def one_sentence_and_hint(result: Result) -> None:
    lines = result.stderr.splitlines()
    reasons = [line for line in lines if line.startswith("error: ") or "✗ " in line]
    hints = [line for line in lines if line.startswith("hint: ")]
    assert (len(reasons), len(hints)) == (1, 1), result.stderr
    assert "Traceback" not in result.stdout + result.stderr


@then("no traceback is shown")
def no_traceback(result: Result) -> None:
    assert "Traceback" not in result.stdout + result.stderr


@then(parsers.parse("it takes no longer than {seconds:d} seconds"))
def takes_no_longer(result: Result, seconds: int) -> None:
    assert result.duration_s < seconds


@then("nothing is left running")
def nothing_left_running(home: Home) -> None:
    assert home.processes() == []
