"""A hive that runs and does not answer: every command says so, with its pid, and none starts a second one beside it."""

import json
import signal
from collections.abc import Iterator

import pytest

from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

PATIENCE_S = 30.0
"""Far above `connect_timeout_s`, which is what bounds these commands, and far below what hangs."""
COMMANDS = [
    ("infer", "--model", "scripted:", "--prompt", "hello"),
    ("hive", "start", "--port", "0"),
    ("hive", "stop"),
    ("workers", "list"),
    ("models", "list"),
]


@pytest.fixture
def hive(home: Home) -> Iterator[Hive]:
    """A hive that is halted as by Ctrl+Z, and goes on after the test."""
    home.environment["RBEE_CONNECT_TIMEOUT_S"] = "0.5"
    hive = home.start_hive()
    hive.program.signal(signal.SIGSTOP)
    yield hive
    hive.program.signal(signal.SIGCONT)
    assert hive.stop().exit_code == 0


def hives(home: Home) -> set[int]:
    return {p.pid for p in home.processes() if "rbee-hive daemon" in " ".join(p.cmdline())}


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(command[:2]) for command in COMMANDS])
def test_a_command_says_that_the_hive_does_not_answer(command: tuple[str, ...], home: Home, hive: Hive) -> None:
    result = home.rbee(*command, timeout_s=PATIENCE_S)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"(pid {hive.pid}) does not answer at 127.0.0.1:{hive.port}" in result.stderr
    assert f"`kill -CONT {hive.pid}`" in result.stderr
    assert f"`kill -KILL {hive.pid}`" in result.stderr
    assert hives(home) == {hive.pid}


def test_infer_says_it_as_data_too(home: Home, hive: Hive) -> None:
    result = home.rbee(*COMMANDS[0], "--json", timeout_s=PATIENCE_S)

    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "HIVE_NOT_ANSWERING"
    assert (error["details"]["pid"], error["details"]["halted"]) == (hive.pid, True)


def test_the_status_names_it(home: Home, hive: Hive) -> None:
    result = home.rbee("hive", "status", timeout_s=PATIENCE_S)

    assert result.exit_code == 1
    assert f"Hive is running but does not answer: pid {hive.pid}" in result.stdout
    assert f"`kill -CONT {hive.pid}`" in result.stdout


def test_the_status_tells_it_from_none_and_from_one_that_answers(home: Home, hive: Hive) -> None:
    silent = json.loads(home.rbee("hive", "status", "--json", timeout_s=PATIENCE_S).stdout)
    hive.program.signal(signal.SIGCONT)
    eventually(lambda: home.rbee("hive", "status").exit_code == 0, PATIENCE_S, what="it answers again")
    well = json.loads(home.rbee("hive", "status", "--json").stdout)

    assert (silent["running"], silent["answering"], silent["pid"]) == (True, False, hive.pid)
    assert (well["running"], well["answering"], well["pid"]) == (True, True, hive.pid)


def test_a_worker_s_log_can_be_read_while_its_hive_does_not_answer(home: Home, hive: Hive) -> None:
    (home.path / "logs" / "worker-1.log").write_text("what it said\n")

    result = home.rbee("logs", "worker-1", timeout_s=PATIENCE_S)

    assert (result.exit_code, result.stdout) == (0, "what it said\n")
    assert f"pid {hive.pid}" in result.stderr


def test_ending_it_as_the_hint_says_leaves_nothing(home: Home) -> None:
    home.environment["RBEE_CONNECT_TIMEOUT_S"] = "0.5"
    hive = home.start_hive()
    hive.program.signal(signal.SIGSTOP)
    assert home.rbee("hive", "stop", timeout_s=PATIENCE_S).exit_code == 1

    hive.kill()

    eventually(lambda: not home.processes(), what="no process is left")
    assert "No hive is running" in home.rbee("hive", "status").stdout
