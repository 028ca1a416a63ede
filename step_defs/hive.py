"""Steps about the hive: starting it, asking it, and the ways in which it ends."""

import signal
import socket
import urllib.request
from collections.abc import Iterator

from pytest_bdd import given, parsers, then, when

from rbee_core import __version__, sse, wire
from step_defs.support import Hive, Home, Result, eventually

EVERYBODY = "0.0.0.0"


@given("no hive is running")
def no_hive(home: Home) -> None:
    assert home.hive_note() is None


@given(parsers.parse("a running hive that gives workers {seconds:d} seconds to stop"), target_fixture="hive")
def hive_with_grace(home: Home, seconds: int) -> Hive:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = str(seconds)
    return home.start_hive()


@given(parsers.parse("a running hive that keeps idle workers for {seconds:d} second"), target_fixture="hive")
def hive_with_short_idle_time(home: Home, seconds: int) -> Hive:
    return home.start_hive("--idle-timeout-s", str(seconds))


@given(parsers.parse("a running hive that waits {seconds:d} second for a sign of life"), target_fixture="hive")
def hive_with_short_load_patience(home: Home, seconds: int) -> Hive:
    home.environment["RBEE_LOAD_STALL_TIMEOUT_S"] = str(seconds)
    return home.start_hive()


@given(parsers.parse("a running hive that waits {seconds:d} second for a token"), target_fixture="hive")
def hive_with_short_token_patience(home: Home, seconds: int) -> Hive:
    home.environment["RBEE_TOKEN_STALL_TIMEOUT_S"] = str(seconds)
    hive = home.start_hive()
    del home.environment["RBEE_TOKEN_STALL_TIMEOUT_S"]
    return hive


@given("a hive whose streams say ten times a second that they live", target_fixture="hive")
def hive_with_quick_signs(home: Home) -> Hive:
    home.environment["RBEE_KEEP_ALIVE_S"] = "0.1"
    return home.start_hive()


@given("a hive that was killed")
def killed_hive(home: Home) -> None:
    home.start_hive().kill()


@given("another program that listens on a port", target_fixture="port")
def port_in_use(home: Home) -> int:
    listener = home.cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
    return listener.getsockname()[1]


@given("another program that listens on a port and never answers", target_fixture="port")
def silent_port(home: Home) -> int:
    home.environment["RBEE_REQUEST_TIMEOUT_S"] = "1"
    return port_in_use(home)


@given("a port on which nobody listens", target_fixture="port")
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@given("somebody who follows its events", target_fixture="followed")
def follow_events(home: Home, hive: Hive) -> Iterator[wire.PoolSnapshot | wire.WorkerChanged]:
    """As `curl -N` does."""
    url = f"http://127.0.0.1:{hive.port}/v1/events"
    answer = home.cleanup.enter_context(urllib.request.urlopen(url, timeout=30))
    return sse.events(iter(answer.readline, b""), wire.PoolSnapshot | wire.WorkerChanged, stall_s=30)


@when("a hive is started", target_fixture="hive")
def start_hive(home: Home) -> Hive:
    return home.start_hive()


@when("a second hive is started", target_fixture="result")
def start_second_hive(home: Home) -> Result:
    return home.start("rbee-hive", "daemon", "--port", "0").finish()


@when("a hive is started on that port", target_fixture="result")
def start_hive_on_port(home: Home, port: int) -> Result:
    return home.start("rbee-hive", "daemon", "--port", str(port)).finish()


@when("a hive is started for everybody in the network", target_fixture="result")
def start_open_hive(home: Home) -> Result:
    return home.start("rbee-hive", "daemon", "--port", "0", "--host", EVERYBODY).finish()


@when("its health is asked", target_fixture="health")
def ask_health(hive: Hive) -> wire.Health:
    return hive.client.health()


@when("the hive is asked to stop", target_fixture="result")
def stop_hive(hive: Hive) -> Result:
    return hive.stop()


@when(parsers.re(r"the hive gets (?P<name>SIG\w+)"), target_fixture="result")
def signal_hive(hive: Hive, name: str) -> Result:
    hive.program.signal(signal.Signals[name])
    return hive.program.finish()


@when("the hive begins to stop")
def begin_to_stop(hive: Hive) -> None:
    hive.program.signal(signal.SIGTERM)


@when("the hive is interrupted twice", target_fixture="result")
def interrupt_hive_twice(hive: Hive) -> Result:
    hive.program.signal(signal.SIGINT)
    eventually(lambda: "got SIGINT" in hive.program.stderr, what="the first signal was taken")
    hive.program.signal(signal.SIGINT)
    return hive.program.finish()


@given("the hive was restarted", target_fixture="hive")
@when("the hive is restarted", target_fixture="hive")
def restart_hive(home: Home, hive: Hive) -> Hive:
    hive.stop()
    return home.start_hive()


@then("its note names its process and its port")
def note_is_right(hive: Hive) -> None:
    assert hive.note["pid"] == hive.pid
    assert hive.client.health().status == "alive"


@then("only its owner may read the note")
def note_is_private(home: Home) -> None:
    assert (home.path / "run" / "hive.json").stat().st_mode & 0o077 == 0


@then("it is alive")
def is_alive(health: wire.Health) -> None:
    assert health.status == "alive"


@then("it has the version of this rbee")
def has_our_version(health: wire.Health) -> None:
    assert health.version == __version__


@then(parsers.parse("it speaks version {version} of the interface"))
def speaks(health: wire.Health, version: str) -> None:
    assert health.api_version == version


@then(parsers.parse('the hive\'s log says "{words}"'))
def hive_log_says(home: Home, words: str) -> None:
    assert words in home.log("hive")


@then("the first hive is alive")
@then("the hive is alive")
def hive_is_alive(hive: Hive) -> None:
    assert hive.client.health().status == "alive"


@then("a hive answers")
def background_hive_answers(home: Home) -> None:
    assert home.rbee("hive", "status").exit_code == 0


@then(parsers.parse('the command "rbee {command}" ends it'))
def command_ends_hive(home: Home, command: str) -> None:
    assert home.rbee(*command.split()).exit_code == 0
    assert home.hive_note() is None


@then("it names the hive's process and port")
def names_process_and_port(hive: Hive, result: Result) -> None:
    assert f"pid {hive.pid}" in result.stdout + result.stderr
    assert str(hive.port) in result.stdout + result.stderr


@then("nothing is noted as running")
def nothing_noted(home: Home) -> None:
    assert not (home.path / "run").exists()


@then("they hear of a worker that was launching, loading, idle, busy and idle again, in this order")
def heard_of_a_life(followed: Iterator[wire.PoolSnapshot | wire.WorkerChanged]) -> None:
    assert isinstance(next(followed), wire.PoolSnapshot)
    life = [next(followed) for _ in range(5)]
    changes = [change for change in life if isinstance(change, wire.WorkerChanged)]
    assert [change.after for change in changes] == ["launching", "loading", "idle", "busy", "idle"]
    assert len({change.worker_id for change in changes}) == 1
