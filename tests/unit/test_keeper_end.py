"""How a command ends what it has started."""

import signal
import time
from pathlib import Path

import pytest

from rbee_core.edge import Interrupted
from rbee_core.keeper.hives.ephemeral import EphemeralHive
from rbee_core.keeper.interrupt import DEADLINE_SLACK_S, deadline, disarm
from rbee_core.settings import Settings


class Waited:
    """A hive's process that takes its time, while somebody presses Ctrl+C."""

    stdin = stdout = None
    killed = False

    def wait(self, timeout: float) -> int:
        raise Interrupted(signal.SIGINT)

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        self.killed = True


def test_a_hive_whose_end_nobody_waits_for_any_more_is_ended_at_once() -> None:
    process = Waited()
    with pytest.raises(Interrupted):
        EphemeralHive(process, Settings(home=Path("/nowhere"))).stop()  # type: ignore[arg-type]
    assert process.killed


def test_a_deadline_that_has_passed_does_not_break_off_the_end() -> None:
    with deadline(0.0):
        disarm()
        time.sleep(DEADLINE_SLACK_S + 0.1)
