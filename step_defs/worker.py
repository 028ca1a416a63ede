"""Steps about workers: having them, listing them, losing them."""

import signal
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from pytest_bdd import given, parsers, then, when

from rbee_core import wire
from step_defs.model import HUB_MODEL, SCRIPTS
from step_defs.support import Hive, Home, Hub, Result, eventually

Workers = dict[str, wire.WorkerInfo]


@pytest.fixture
def workers() -> Workers:
    """The workers that the scenario has, by what they do."""
    return {}


def spawn(hive: Hive, model: str, backend: str) -> wire.SpawnResponse:
    return hive.client.spawn(wire.SpawnRequest(model_ref=model, backend=backend))


def idle_worker(hive: Hive, model: str, backend: str) -> wire.WorkerInfo:
    worker_id = spawn(hive, model, backend).worker_id
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is idle")
    return hive.client.worker(worker_id)


@given("a worker for the model", target_fixture="worker")
def worker_for_model(hive: Hive, model: str, backend: str) -> wire.WorkerInfo:
    return idle_worker(hive, model, backend)


@given("the model was used before")
def model_used_before(hive: Hive, model: str, backend: str) -> None:
    hive.client.stop_worker(idle_worker(hive, model, backend).worker_id)


@given("the hub's model was downloaded", target_fixture="asked_before")
def hub_model_downloaded(hive: Hive, hub: Hub, backend: str) -> int:
    hive.client.stop_worker(idle_worker(hive, HUB_MODEL, backend).worker_id)
    return len(hub.requests)


@given("the hub has lost that model")
def hub_has_lost_model(hub: Hub) -> None:
    hub.files.clear()


@given(parsers.parse("a worker that {does}"), target_fixture="worker")
def worker_that(hive: Hive, workers: Workers, backend: str, does: str) -> wire.WorkerInfo:
    workers[does] = idle_worker(hive, SCRIPTS[does], backend)
    return workers[does]


@given("workers that stop when asked, when terminated and when killed")
def workers_that_stop(hive: Hive, workers: Workers, backend: str) -> None:
    for does in ("stops when asked", "stops when terminated", "stops when killed"):
        workers[does] = idle_worker(hive, SCRIPTS[does], backend)


@given("that worker is frozen")
def freeze_worker(worker: wire.WorkerInfo) -> None:
    psutil.Process(worker.pid).suspend()


@given("that worker was killed", target_fixture="model")
def worker_was_killed(hive: Hive, worker: wire.WorkerInfo) -> str:
    psutil.Process(worker.pid).kill()
    eventually(lambda: not hive.client.list_workers(), what="the worker is gone")
    return worker.model_ref


@when("a worker is wanted for the model", target_fixture="answer")
def want_worker(hive: Hive, model: str, backend: str) -> wire.SpawnResponse:
    return spawn(hive, model, backend)


@when("a worker is wanted for the hub's model", target_fixture="answer")
def want_worker_for_hub_model(hive: Hive, backend: str) -> wire.SpawnResponse:
    return spawn(hive, HUB_MODEL, backend)


@when(parsers.parse("a worker is wanted that {does}"), target_fixture="worker")
def want_worker_that(hive: Hive, backend: str, does: str) -> wire.WorkerInfo:
    return idle_worker(hive, SCRIPTS[does], backend)


@when(parsers.parse("{count:d} people want a worker that {does}"), target_fixture="answers")
def many_want_worker(hive: Hive, backend: str, count: int, does: str) -> list[wire.SpawnResponse]:
    clients = [hive.connect() for _ in range(count)]
    request = wire.SpawnRequest(model_ref=SCRIPTS[does], backend=backend)
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda client: client.spawn(request), clients))


@when("the registry's code is loaded alone", target_fixture="result")
def load_registry(home: Home) -> Result:
    return home.python("import sys, rbee_core.domain.pool; print(*sys.modules)")


@when("that worker is killed")
def kill_worker(worker: wire.WorkerInfo) -> None:
    psutil.Process(worker.pid).send_signal(signal.SIGKILL)


@when("the worker's log is asked for", target_fixture="result")
def ask_log(home: Home, worker: wire.WorkerInfo) -> Result:
    return home.rbee("logs", worker.worker_id)


@then("SQLite was not loaded with it")
def no_sqlite(result: Result) -> None:
    assert not {"sqlite3", "_sqlite3"} & set(result.stdout.split())


@then("the hive has no workers")
def no_workers(hive: Hive) -> None:
    assert hive.client.list_workers() == []


@then(parsers.re(r"the hive has no workers within (?P<seconds>\d+) seconds"), converters={"seconds": int})
def no_workers_within(hive: Hive, seconds: int) -> None:
    eventually(lambda: not hive.client.list_workers(), seconds, what="the registry is empty")


@then("the hive has an idle worker")
def has_idle_worker(hive: Hive) -> None:
    assert [w.state for w in hive.client.list_workers()] == ["idle"]


@then("the hive knows that worker")
def knows_worker(hive: Hive, answer: wire.SpawnResponse) -> None:
    assert hive.client.worker(answer.worker_id).state in ("loading", "idle")


@then("it becomes idle")
def becomes_idle(hive: Hive, answer: wire.SpawnResponse) -> None:
    eventually(lambda: hive.client.worker(answer.worker_id).state == "idle", what="the worker is idle")


@then("the hive lists one worker")
def lists_one_worker(hive: Hive) -> None:
    assert len(hive.client.list_workers()) == 1


@then(parsers.parse("the hive lists {count:d} workers"))
def lists_workers(hive: Hive, count: int) -> None:
    assert len(hive.client.list_workers()) == count


@then("all are given the same worker")
def same_worker(answers: list[wire.SpawnResponse]) -> None:
    assert len({answer.worker_id for answer in answers}) == 1


@then("the answer names the worker and where it listens")
def answer_names_worker(hive: Hive, answer: wire.SpawnResponse) -> None:
    assert answer.worker_id in [w.worker_id for w in hive.client.list_workers()]
    assert answer.url.startswith("http://127.0.0.1:")


@then(parsers.parse('the answer\'s state is "{state}"'))
def answer_state(answer: wire.SpawnResponse, state: str) -> None:
    assert answer.state == state


@then("it names that worker, its model, its backend and its state")
def names_worker(result: Result, worker: wire.WorkerInfo) -> None:
    for fact in (worker.worker_id, worker.model_ref, worker.backend, "idle"):
        assert fact in result.stdout


@then(parsers.parse('the worker\'s end is known as "{state}"'))
def end_is_known(hive: Hive, worker: wire.WorkerInfo, state: str) -> None:
    assert hive.client.worker(worker.worker_id).state == state


@then(parsers.re(r"the worker is idle within (?P<seconds>\d+) seconds?"), converters={"seconds": int})
def idle_within(hive: Hive, seconds: int) -> None:
    def states() -> list[str]:
        return [w.state for w in hive.client.list_workers()]

    eventually(lambda: states() == ["idle"], seconds, what="the worker is idle")


@then(parsers.parse("the worker that {does} leaves the registry at once"))
def leaves_at_once(hive: Hive, workers: Workers, does: str) -> None:
    def ids() -> list[str]:
        return [w.worker_id for w in hive.client.list_workers()]

    eventually(lambda: workers[does].worker_id not in ids(), 1.5, what="it left the registry")


@then(parsers.parse("the worker that {does} leaves it within {seconds:d} seconds"))
def leaves_within(hive: Hive, workers: Workers, does: str, seconds: int) -> None:
    assert workers[does].worker_id in [w.worker_id for w in hive.client.list_workers()]
    eventually(lambda: not hive.program.running(), seconds, what="the hive ended")


@then("each worker was asked first")
def asked_first(home: Home, workers: Workers) -> None:
    for worker in workers.values():
        assert "asked to stop" in home.log(worker.worker_id)


@then("only those that did not stop were terminated")
def terminated_second(home: Home, workers: Workers) -> None:
    told = {does for does, worker in workers.items() if "told to terminate" in home.log(worker.worker_id)}
    assert told == workers.keys() - {"stops when asked"}


@then("it shows control characters as text")
def control_characters_escaped(result: Result) -> None:
    assert r"\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout
