"""A model that ends its engine each time: the hive tries it a few times, says so, and lets be."""

import json

import pytest

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.errors import RemoteError
from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

MODEL = "scripted:load_abort=1"


def wanted(client: HiveClient) -> RemoteError:
    """Ask for an answer of the model, as a program does that does not give up; return why there is none."""
    with pytest.raises(RemoteError) as caught:
        list(client.infer_with_model(wire.PoolInference(model_ref=MODEL, prompt="hello")))
    return caught.value


def test_b12_a_model_that_aborts_the_engine_is_held_back(home: Home) -> None:
    home.environment["RBEE_RESTART_DELAY_S"] = "0.05"
    client = home.start_hive().client

    errors = [wanted(client).code for _ in range(8)]

    assert errors == ["WORKER_CRASHED"] * 5 + ["MODEL_HELD_BACK"] * 3
    failed = client.list_workers(state="failed")
    assert [worker.failures for worker in failed] == [1, 2, 3, 4, 5]
    last = failed[-1]
    refusal = wanted(client)
    assert "5 workers for it failed in a row" in refusal.message
    assert "SIGABRT" in refusal.message
    assert f"`rbee logs {last.worker_id}`" in refusal.hint
    assert "scripted: the load aborts" in home.rbee("logs", last.worker_id).stdout

    listed = home.rbee("workers", "list").stdout
    assert listed.splitlines()[-1].split()[:4] == [MODEL, "scripted", "cpu", "5"]
    held = json.loads(home.rbee("workers", "list", "--json").stdout)["held_back"]
    assert [(worker["worker_id"], worker["failures"]) for worker in held] == [(last.worker_id, 5)]
    assert held[0]["held_back_s"] > 0

    assert "tried again" in home.rbee("workers", "retry").stdout
    assert wanted(client).code == "WORKER_CRASHED"
    assert home.rbee("workers", "retry", "scripted:").stdout == "scripted:: is not held back\n"


def test_b12_who_comes_while_a_model_is_held_back_waits_its_turn(home: Home) -> None:
    home.environment["RBEE_RESTART_DELAY_S"] = "3600"
    client = home.start_hive().client
    assert wanted(client).code == "WORKER_CRASHED"
    waiting = client.infer_with_model(wire.PoolInference(model_ref=MODEL, prompt="hello"))

    first = next(event for event in next(waiting) if event.waiting)

    assert first.waiting is not None
    assert first.waiting.for_what == "a restart"
    waiting.close()
    queue_not = wire.PoolInference(model_ref=MODEL, prompt="hello", queue=False)
    with pytest.raises(RemoteError, match="has just failed"):
        list(client.infer_with_model(queue_not))
    eventually(lambda: client.retry(MODEL) != [], what="it was held back")
    assert wanted(client).code == "WORKER_CRASHED"
