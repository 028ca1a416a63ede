"""The hive of one command is ended whatever happens, also while its end is waited for."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rbee_core.errors import DeadlineExceeded
from rbee_core.keeper.hives import ephemeral
from rbee_core.keeper.hives.ephemeral import HURRY_S, ephemeral_hive
from rbee_core.keeper.interrupt import DEADLINE_SLACK_S, deadline
from rbee_core.settings import Settings


def test_a_deadline_that_passes_while_the_hive_ends_leaves_none_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(home=Path("/nowhere"))
    process, waits = SimpleNamespace(stdin=None, stdout=None), list[float]()

    def end(ended: Any, patience_s: float) -> None:
        assert ended is process
        waits.append(patience_s)
        if len(waits) == 1:
            raise DeadlineExceeded("too late")

    monkeypatch.setattr(ephemeral.launch, "launch", lambda *_, **__: process)
    monkeypatch.setattr(ephemeral.launch, "end", end)
    with pytest.raises(DeadlineExceeded), ephemeral_hive(settings, worker=False):
        pass
    assert waits == [settings.shutdown_grace_s, HURRY_S]


def test_a_deadline_that_the_worker_noticed_first_does_not_break_off_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[float]()

    def end(_process: Any, patience_s: float) -> None:
        time.sleep(DEADLINE_SLACK_S + 0.1)
        waits.append(patience_s)

    monkeypatch.setattr(ephemeral.launch, "launch", lambda *_, **__: SimpleNamespace(stdin=None, stdout=None))
    monkeypatch.setattr(ephemeral.launch, "end", end)
    settings = Settings(home=Path("/nowhere"))
    with (
        pytest.raises(DeadlineExceeded, match="the worker"),
        deadline(0.05),
        ephemeral_hive(settings, worker=False),
    ):
        raise DeadlineExceeded("the worker says so")
    assert waits == [HURRY_S]
