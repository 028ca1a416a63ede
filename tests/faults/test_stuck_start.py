"""A hive that does not get through its start: it can be seen, stopped, and ends with whoever started it."""

import json
import signal
from pathlib import Path

import pytest

from rbee_kit.program import Home, Program
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

LONG_S = 60.0
STUCK = "import time\ntime.sleep(3600)\n"


@pytest.fixture(autouse=True)
def stuck(home: Home, tmp_path: Path) -> None:
    """Plugins that never let their import end: what a driver, a disk or a lock can do to any start.

    Each is given up after a while, so there are many of them.
    """
    metadata = tmp_path / "rbee_stuck-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "rbee_stuck.py").write_text(STUCK)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rbee-stuck\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rbee]\n" + "".join(f"stuck{n} = rbee_stuck\n" for n in range(60)))
    home.use_plugins_in(tmp_path)


def is_stuck(home: Home) -> bool:
    """Whether a hive waits for the plugin by now."""
    return (home.path / "logs" / "hive.log").exists() and "Model catalog" in home.log("hive")


def nothing_is_left(home: Home) -> None:
    eventually(lambda: home.processes() == [], LONG_S, what="nothing is left")
    assert [name for name in home.files() if name.startswith("run/")] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_b7_a_hive_ends_with_its_keeper_also_while_it_starts(number: signal.Signals, home: Home) -> None:
    keeper = home.start("rbee", "infer", "--model", "scripted:", "--prompt", "x")
    eventually(lambda: is_stuck(home), LONG_S, what="its hive is stuck")

    keeper.signal(number)

    keeper.finish(LONG_S)
    nothing_is_left(home)


def starting(home: Home) -> tuple[Program, int]:
    """Start a hive in the background, and return who waits for it, and its pid, once it is stuck."""
    starter = home.start("rbee", "hive", "start", "--port", "0")
    eventually(lambda: is_stuck(home), LONG_S, what="the hive is stuck")
    return starter, json.loads((home.path / "run" / "starting.json").read_text())["pid"]


def test_c6_a_hive_that_is_starting_is_seen_and_stopped(home: Home) -> None:
    home.environment["RBEE_WORKER_START_TIMEOUT_S"] = "600"  # else its starter gives up, and ends it
    starter, pid = starting(home)

    status = home.rbee("hive", "status")
    second = home.rbee("hive", "start")
    daemon = home.start("rbee-hive", "daemon", "--port", "0").finish(LONG_S)
    stopped = home.rbee("hive", "stop", timeout_s=LONG_S)

    assert (status.exit_code, status.stdout) == (1, f"Hive is starting: pid {pid}\n")
    for refused in (second, daemon):
        assert refused.exit_code == 1
        assert f"A hive is already starting on this RBEE_HOME: pid {pid}\n" in refused.stderr
        assert "rbee hive stop" in refused.stderr
    assert (stopped.exit_code, stopped.stdout) == (0, "Hive stopped: 0 workers shut down\n"), stopped.stderr
    assert f"still starting (pid {pid})" in stopped.stderr
    assert starter.finish(LONG_S).exit_code == 1
    nothing_is_left(home)


def test_c6_who_needs_a_hive_that_is_starting_waits_for_it(home: Home) -> None:
    home.environment["RBEE_WORKER_START_TIMEOUT_S"] = "1"
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "2"
    daemon = home.start("rbee-hive", "daemon", "--port", "0")
    eventually(lambda: is_stuck(home), LONG_S, what="the hive is stuck")

    asked = home.rbee("workers", "list")

    assert asked.exit_code == 1
    assert f"(pid {daemon.pid}) does not answer" in asked.stderr
    assert "it is still starting" in asked.stderr
    daemon.signal(signal.SIGTERM)
    assert daemon.finish(LONG_S).exit_code == 0
    nothing_is_left(home)
