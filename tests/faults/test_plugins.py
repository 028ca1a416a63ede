"""Plugins that break their contract, in a real hive: each costs the request that needed it, and nobody else."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rbee_core import wire
from rbee_core.errors import RemoteError
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

BROKEN = Path(__file__).parents[1] / "support" / "broken"
LIMIT_S = 2.0


@pytest.fixture
def hanging(home: Home, tmp_path: Path) -> Iterator[Path]:
    """While this file exists, the drivers of the broken backends hang."""
    home.use_plugins_in(BROKEN)
    switch = tmp_path / "hanging"
    home.environment |= {"RBEE_BROKEN": str(switch), "RBEE_PLUGIN_TIMEOUT_S": str(LIMIT_S)}
    yield switch
    switch.unlink(missing_ok=True)


def spawn(hive: Hive, backend: str | None = "scripted", script: str = "tokens=2") -> str:
    return hive.client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}", backend=backend)).worker_id


def ended(hive: Hive, worker_id: str) -> wire.WorkerInfo:
    eventually(lambda: hive.client.worker(worker_id).state == "failed", what="the worker has failed")
    return hive.client.worker(worker_id)


def idle(hive: Hive, worker_id: str) -> None:
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is idle")


def refused(ask: Callable[[], object]) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        ask()
    return caught.value


@pytest.mark.parametrize("backend", ["hanging-driver", "hanging-estimate"])
def test_a_driver_that_hangs_fails_its_spawn_and_nothing_else(backend: str, home: Home, hanging: Path) -> None:
    hive = home.start_hive()
    worker = spawn(hive, script="tokens=inf;token_ms=20")
    idle(hive, worker)
    hanging.touch()
    with ThreadPoolExecutor() as pool:
        stream = hive.client.infer(worker, wire.InferenceRequest(prompt="hello", max_tokens=4000))
        assert next(stream).token
        late = pool.submit(refused, lambda: spawn(hive, backend))
        while not late.done():
            assert next(stream).token is not None, "the stream stopped"
            assert [w.worker_id for w in hive.client.list_workers()] == [worker]
        error = late.result()
    assert (error.code, error.http_status) == ("PLUGIN_TIMEOUT", 504)
    assert backend in error.message
    assert f"{LIMIT_S:g} s" in error.message
    stream.close()
    assert spawn(hive, script="tokens=3") != worker, "others are spawned as before"
    hanging.unlink()
    spawn(hive, backend)


def test_a_driver_that_hangs_is_shown_as_not_available(home: Home, hanging: Path) -> None:
    hive = home.start_hive()
    hanging.touch()
    shown = {b.name: b for b in hive.client.backends()}
    assert (shown["hanging-driver"].available, shown["scripted"].available) == (False, True)
    assert f"{LIMIT_S:g} s" in shown["hanging-driver"].reason


def test_the_hive_ends_while_a_driver_hangs(home: Home, hanging: Path) -> None:
    hive = home.start_hive()
    hanging.touch()
    refused(lambda: spawn(hive, "hanging-driver"))
    assert hive.stop().exit_code == 0  # the driver hangs on for 30 s
    assert hanging.exists()


def test_a_device_that_is_gone_fails_the_load_by_name(home: Home, hanging: Path) -> None:
    hive = home.start_hive()
    worker = ended(hive, spawn(hive, "lost-device"))
    assert worker.error is not None
    assert worker.error.code == "DEVICE_GONE"
    assert "card:0" in worker.error.message
    assert "lost-device" in worker.error.message


@pytest.mark.parametrize("backend", ["wrong-environment", "wrong-estimate"])
def test_what_is_no_answer_is_the_plugins_fault(backend: str, home: Home, hanging: Path) -> None:
    error = refused(lambda: spawn(home.start_hive(), backend))
    assert error.code == "PLUGIN_FAILED"
    assert backend in error.message


def test_half_a_plugin_is_not_used(home: Home, hanging: Path) -> None:
    hive = home.start_hive()
    names = {b.name for b in hive.client.backends()}
    assert "hanging-driver" in names
    assert "half-first" not in names


def test_a_hook_that_hangs_holds_up_no_worker(home: Home, hanging: Path) -> None:
    hanging.touch()
    hive = home.start_hive()
    worker = spawn(hive)
    idle(hive, worker)
    assert [e.done for e in hive.client.infer(worker, wire.InferenceRequest(prompt="hello"))][-1]
    log = home.path / "logs" / "hive.log"
    eventually(lambda: "plugin broken is not used: TimeoutError" in log.read_text(), what="the plugin is named")
    assert hive.client.stop_worker(worker) == [worker]


def test_a_stop_policy_that_hangs_is_replaced(home: Home, hanging: Path) -> None:
    hive = home.start_hive()
    worker = spawn(hive, "hanging-stop")
    idle(hive, worker)
    assert hive.client.stop_worker(worker) == [worker]
    assert hive.client.worker(worker).state == "unloaded"
