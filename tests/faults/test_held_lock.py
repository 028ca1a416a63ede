"""A lock on the models that is never given up holds nobody for long."""

import fcntl
import os
import signal
from collections.abc import Iterator

import pytest

from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

LONG_S = 40.0
"""The lock is held until the test is over."""


@pytest.fixture
def held(home: Home) -> Iterator[None]:
    folder = home.path / "models"
    folder.mkdir(parents=True, mode=0o700)
    home.path.chmod(0o700)
    holder = os.open(folder, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    yield
    os.close(holder)


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_b7_a_keeper_that_ends_leaves_nothing(number: signal.Signals, home: Home) -> None:
    keeper = home.start("rbee", "infer", "--model", "scripted:", "--prompt", "x")
    eventually(lambda: len(home.processes()) > 1, 60, what="its hive is started")

    keeper.signal(number)
    keeper.finish(LONG_S)

    eventually(lambda: home.processes() == [], LONG_S, what="nothing is left")


@pytest.mark.usefixtures("held")
@pytest.mark.parametrize("command", [("models", "verify"), ("models", "list")], ids=lambda c: c[1])
def test_b7_a_command_says_who_is_in_its_way(command: tuple[str, ...], home: Home) -> None:
    answer = home.rbee(*command, timeout_s=LONG_S)

    assert answer.exit_code == 1
    assert "Another program holds the lock of" in answer.stderr
