"""The stream of events of a running hive: a worker's life, numbered, resumed, ended, and for those who may read."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import pytest

from rbee_core import wire
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

Told = wire.PoolSnapshot | wire.WorkerChanged
LIFE = ["launching", "loading", "idle", "busy", "idle", "stopping", "unloaded"]


@dataclass
class Reader:
    """Somebody who reads the stream line by line, as `curl -N` does."""

    answer: http.client.HTTPResponse
    mark: str = ""

    def next(self) -> Told | None:
        """Return the next event, None for the end mark."""
        while True:
            line = self.answer.readline().decode().strip()
            if line.startswith("id: "):
                self.mark = line.removeprefix("id: ")
            elif line == "data: [DONE]":
                return None
            elif line.startswith("data: "):
                return msgspec.json.decode(line.removeprefix("data: "), type=Told)

    def states(self, last: str) -> list[str]:
        """Return the states that workers came to, up to one."""
        states: list[str] = []
        while not states or states[-1] != last:
            told = self.next()
            assert isinstance(told, wire.WorkerChanged)
            states.append(told.after)
        return states


@contextmanager
def reading(hive: Hive, mark: str = "") -> Iterator[Reader]:
    connection = http.client.HTTPConnection("127.0.0.1", hive.port, timeout=30)
    try:
        connection.request("GET", "/v1/events", headers={"Last-Event-ID": mark} if mark else {})
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield Reader(answer)
    finally:
        connection.close()


def live_a_life(hive: Hive) -> str:
    worker_id = hive.client.spawn(wire.SpawnRequest(model_ref="scripted:tokens=2")).worker_id
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is ready")
    list(hive.client.infer(worker_id, wire.InferenceRequest(prompt="hello")))
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the request is over")
    hive.client.stop_worker(worker_id)
    return worker_id


def test_a_worker_s_life_from_a_snapshot_to_its_end(home: Home) -> None:
    hive = home.start_hive()
    with reading(hive) as reader:
        snapshot = reader.next()
        assert isinstance(snapshot, wire.PoolSnapshot)
        assert (snapshot.workers, snapshot.number, snapshot.missed) == ([], 0, 0)
        worker_id = live_a_life(hive)
        first = reader.next()
        assert isinstance(first, wire.WorkerChanged)
        assert (first.number, first.worker_id, first.before, first.after, first.reason) == (
            1, worker_id, None, "launching", "wanted",
        )  # fmt: skip
        assert (first.worker.model_ref, first.worker.state) == ("scripted:tokens=2", "loading")
        assert reader.states("unloaded") == LIFE[1:]
        hive.client.shutdown()
        assert reader.next() is None
    assert hive.program.finish().exit_code == 0
    log = home.log("hive")
    assert log.index(f"{worker_id}: loading, was launching: bound, registered at") < log.index(f"{worker_id}: idle")


def test_a_reader_that_comes_back_goes_on_where_it_was(home: Home) -> None:
    hive = home.start_hive()
    with reading(hive) as reader:
        assert isinstance(reader.next(), wire.PoolSnapshot)
        worker_id = live_a_life(hive)
        assert reader.states("loading") == ["launching", "loading"]
        mark = reader.mark
    with reading(hive, mark) as reader:
        assert reader.states("unloaded") == LIFE[2:]
    with reading(hive, "other-2") as reader:
        snapshot = reader.next()
        assert isinstance(snapshot, wire.PoolSnapshot)
        assert (snapshot.workers, snapshot.number) == ([], len(LIFE))
    assert hive.client.worker(worker_id).state == "unloaded"


def test_what_happens_is_for_those_who_have_the_key(home: Home) -> None:
    home.environment["RBEE_API_KEY"] = "k" * 32
    hive = home.start_hive()
    connection = http.client.HTTPConnection("127.0.0.1", hive.port, timeout=30)
    connection.request("GET", "/v1/events")
    with connection.getresponse() as answer:
        assert (answer.status, json.load(answer)["error"]["code"]) == (401, "INVALID_API_KEY")
    connection.close()


def test_a_client_hears_a_life_as_typed_events(home: Home) -> None:
    hive = home.start_hive()
    with hive.connect() as reader:
        events = reader.events()
        assert isinstance(next(events), wire.PoolSnapshot)
        live_a_life(hive)
        hive.client.shutdown()
        assert [told.after for told in events if isinstance(told, wire.WorkerChanged)] == LIFE
