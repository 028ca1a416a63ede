"""Requests at the hive's one door, with scripted workers: who waits for what, who is refused, who makes room."""

import asyncio
import json
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.request import Request, urlopen

import aiohttp
import psutil
import pytest

from rbee_core import wire
from rbee_core.errors import RemoteError
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

ENDLESS = "tokens=inf;token_ms=20"

Stream = Generator[list[wire.StreamEvent]]


@pytest.fixture
def hive(home: Home) -> Hive:
    return home.start_hive()


def ask(hive: Hive, script: str, **fields: Any) -> Stream:
    """Ask for a text, over a connection of its own."""
    return hive.connect().infer_with_model(
        wire.PoolInference(model_ref=f"scripted:{script}", **{"prompt": "hello", **fields})
    )


def first_token(stream: Stream) -> None:
    """Read up to the first token."""
    for group in stream:
        if any(event.token for event in group):
            return
    raise AssertionError("the stream ended without a token")


def wait_told(stream: Stream) -> wire.Waiting:
    """Read up to the next event that tells of a wait."""
    for group in stream:
        for event in group:
            if event.waiting:
                return event.waiting
            assert event.token is None, "it waits no more"
    raise AssertionError("the stream ended")


def text_of(stream: Stream) -> str:
    """Read to the end."""
    return "".join(event.token or "" for group in stream for event in group)


def spawn(hive: Hive, script: str, **options: Any) -> str:
    worker_id = hive.client.spawn(wire.SpawnRequest(model_ref=f"scripted:{script}", **options)).worker_id
    eventually(lambda: hive.client.worker(worker_id).state == "idle", what="the worker is ready")
    return worker_id


def most_of_the_memory() -> int:
    """Return a size in MB that fits once and not twice."""
    return psutil.virtual_memory().available * 6 // 10 // 1_000_000


def test_a_model_is_enough(hive: Hive) -> None:
    groups = list(ask(hive, "text=one two;tokens=2"))
    events = [event for group in groups for event in group]
    assert "".join(e.token or "" for e in events) == "one two "
    named = {event.worker_id for event in events} - {""}
    assert named == {worker.worker_id for worker in hive.client.list_workers()}


def test_a_worker_that_is_there_is_used_and_named_in_a_header(hive: Hive) -> None:
    worker_id = spawn(hive, "tokens=1")
    assert next(ask(hive, "tokens=1")) == [wire.StreamEvent(worker_id=worker_id)]


def test_many_who_want_one_cold_model_start_one_worker(hive: Hive) -> None:
    with ThreadPoolExecutor(12) as pool:
        texts = list(pool.map(lambda _: text_of(ask(hive, "text=one;tokens=1;load_s=0.5")), range(12)))
    assert texts == ["one "] * 12
    assert len(hive.client.list_workers()) == 1


def test_more_than_the_queue_holds_are_refused_with_counts(hive: Hive) -> None:
    running = ask(hive, ENDLESS, request_id="first")
    first_token(running)
    worker_id = hive.client.list_workers()[0].worker_id
    url = f"http://127.0.0.1:{hive.port}/v1/inference"
    body = {"model_ref": f"scripted:{ENDLESS}", "prompt": "hello", "max_tokens": 1}

    refused: list[Any] = []
    texts: list[str] = []

    async def one(session: aiohttp.ClientSession, all_refused: asyncio.Event) -> None:
        async with session.post(url, json=body) as answer:
            texts.append(await answer.text())
            if answer.status != 200:
                refused.append((answer.status, json.loads(texts[-1])["error"]))
                if len(refused) == 135:
                    all_refused.set()

    async def all_of_them() -> None:
        all_refused, connector = asyncio.Event(), aiohttp.TCPConnector(limit=0)
        async with (
            asyncio.timeout(120),
            aiohttp.ClientSession(connector=connector) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(199):
                tasks.create_task(one(session, all_refused))
            await all_refused.wait()
            await asyncio.to_thread(hive.client.cancel, worker_id, "first", timeout_s=5)

    asyncio.run(all_of_them())
    assert len(refused) == 135
    assert {status for status, _ in refused} == {503}
    assert {error["code"] for _, error in refused} == {"ALL_SLOTS_BUSY"}
    assert all((e["details"]["slots"], e["details"]["busy"], e["details"]["waiting"]) == (1, 1, 64) for _, e in refused)
    assert Counter(text.count('"done":true') for text in texts) == {1: 64, 0: 135}
    assert len(hive.client.list_workers()) == 1


def test_what_no_backend_can_do_is_refused_before_a_worker_is_started(home: Home, hive: Hive) -> None:
    with pytest.raises(RemoteError, match="Backend scripted does not know logprobs, regex: that needs") as refused:
        text_of(ask(hive, "text=one", backend="scripted", logprobs=1, regex="a"))
    assert (refused.value.code, refused.value.http_status) == ("NOT_SUPPORTED", 422)
    assert refused.value.details["fields"] == ["logprobs", "regex"]
    assert hive.client.list_workers() == []


def test_what_a_worker_s_backend_cannot_do_is_refused_though_its_slot_is_taken(hive: Hive) -> None:
    worker_id = spawn(hive, ENDLESS)
    running = ask(hive, ENDLESS)
    first_token(running)
    wanted = wire.WorkerInference(prompt="hello", mirostat=2)
    with pytest.raises(RemoteError, match="scripted does not know mirostat") as refused:
        list(hive.connect().infer(worker_id, wanted))
    assert refused.value.code == "NOT_SUPPORTED"
    with pytest.raises(RemoteError, match="does not know ignore_eos"):  # whose backend nobody named
        text_of(ask(hive, "text=other", ignore_eos=True))
    running.close()


def test_who_does_not_want_to_queue_is_refused_at_once(hive: Hive) -> None:
    first_token(running := ask(hive, ENDLESS))
    with pytest.raises(RemoteError) as caught:
        next(ask(hive, ENDLESS, queue=False))
    assert (caught.value.code, caught.value.http_status) == ("ALL_SLOTS_BUSY", 503)
    assert (caught.value.details["slots"], caught.value.details["busy"]) == (1, 1)
    running.close()


def test_who_waits_is_told_its_place_and_who_leaves_is_forgotten(hive: Hive) -> None:
    first_token(running := ask(hive, ENDLESS))
    second = ask(hive, ENDLESS)
    assert wait_told(second) == wire.Waiting(position=1, for_what="a slot")
    third = ask(hive, ENDLESS)
    assert wait_told(third) == wire.Waiting(position=2, for_what="a slot")
    second.close()
    assert wait_told(third) == wire.Waiting(position=1, for_what="a slot")
    running.close()
    first_token(third)
    third.close()
    eventually(lambda: hive.client.list_workers()[0].state == "idle", what="nobody is left")


def test_a_request_is_cancelled_by_its_name_whether_it_waits_or_runs(hive: Hive) -> None:
    running = ask(hive, ENDLESS, request_id="first")
    first_token(running)
    body = {"model_ref": f"scripted:{ENDLESS}", "prompt": "hello", "request_id": "second"}
    url = f"http://127.0.0.1:{hive.port}/v1/inference"
    with urlopen(Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})) as stream:
        assert b'"waiting"' in stream.readline()
        hive.client.cancel_request("second", timeout_s=5)
        rest = stream.read()
    assert (rest.count(b'"error"'), rest.count(b"REQUEST_CANCELED"), rest.count(b"[DONE]")) == (1, 1, 1)
    hive.client.cancel_request("first", timeout_s=5)
    with pytest.raises(RemoteError) as caught:
        text_of(running)
    assert caught.value.code == "REQUEST_CANCELED"
    eventually(lambda: hive.client.list_workers()[0].state == "idle", what="the slot is free")


def test_the_deadline_of_a_request_counts_while_it_waits(hive: Hive) -> None:
    first_token(running := ask(hive, ENDLESS))
    with pytest.raises(RemoteError) as caught:
        text_of(ask(hive, ENDLESS, timeout_s=0.5))
    assert caught.value.code == "DEADLINE_EXCEEDED"
    running.close()


def test_who_waits_when_the_hive_stops_is_told(home: Home, hive: Hive) -> None:
    home.environment["RBEE_SHUTDOWN_GRACE_S"] = "1"
    first_token(running := ask(hive, ENDLESS))
    waiting = ask(hive, ENDLESS)
    wait_told(waiting)
    hive.client.shutdown()
    with pytest.raises(RemoteError) as caught:
        text_of(waiting)
    assert caught.value.code == "SHUTTING_DOWN"
    running.close()


def test_an_idle_worker_makes_room(home: Home, hive: Hive) -> None:
    size = most_of_the_memory()
    first = spawn(hive, f"tokens=1;need_mb={size}")
    assert text_of(ask(hive, f"text=here;tokens=1;need_mb={size}")) == "here "
    ended = hive.client.worker(first)
    assert ended.state == "evicted"
    assert ended.reason.startswith("to make room")
    assert "text=here" in ended.reason
    assert [w.model_ref for w in hive.client.list_workers()] == [f"scripted:text=here;tokens=1;need_mb={size}"]
    assert "text=here" in home.log("hive")


def test_a_busy_worker_is_waited_for(hive: Hive) -> None:
    size = most_of_the_memory()
    first_token(running := ask(hive, f"{ENDLESS};need_mb={size}"))
    busy = hive.client.list_workers()[0].worker_id
    waiting = ask(hive, f"text=here;tokens=1;need_mb={size}")
    told = wait_told(waiting)
    while told.for_what != "memory":
        told = wait_told(waiting)
    assert hive.client.worker(busy).state == "busy"
    running.close()
    assert text_of(waiting) == "here "
    assert hive.client.worker(busy).state == "evicted"


def test_of_two_cold_models_of_which_one_fits_both_are_served_in_turn(hive: Hive) -> None:
    size = most_of_the_memory()
    with ThreadPoolExecutor(2) as pool:
        texts = pool.map(lambda word: text_of(ask(hive, f"text={word};tokens=1;need_mb={size}")), ("one", "two"))
        assert list(texts) == ["one ", "two "]
    assert len(hive.client.list_workers()) == 1


def test_what_will_never_fit_is_refused_and_nobody_stopped_for_it(hive: Hive) -> None:
    idle = spawn(hive, "tokens=1")
    with pytest.raises(RemoteError) as caught:
        text_of(ask(hive, "need_mb=999000000"))
    assert (caught.value.code, caught.value.http_status) == ("INSUFFICIENT_RAM", 507)
    assert hive.client.worker(idle).state == "idle"


def test_a_worker_that_was_stopped_is_replaced(hive: Hive) -> None:
    request = wire.SpawnRequest(model_ref="scripted:tokens=1")
    spawn(hive, "tokens=1")
    found = hive.client.find_worker(request)
    assert found is not None
    hive.client.stop_worker(found.worker_id)
    assert hive.client.find_worker(request) is None
    assert text_of(ask(hive, "tokens=1")) != ""
    assert [w.worker_id for w in hive.client.list_workers()] != [found.worker_id]


def test_a_worker_of_another_context_is_not_taken(hive: Hive) -> None:
    narrow = spawn(hive, "tokens=1", context_tokens=128)
    assert hive.client.find_worker(wire.SpawnRequest(model_ref="scripted:tokens=1")) is None
    text_of(ask(hive, "tokens=1"))
    assert {w.worker_id: w.context_tokens for w in hive.client.list_workers()}.pop(narrow) == 128
    assert len(hive.client.list_workers()) == 2


def test_a_worker_is_found_whatever_words_ask_for_it(hive: Hive) -> None:
    worker_id = spawn(hive, "tokens=1", backend="scripted", device=0)
    found = hive.client.find_worker(wire.SpawnRequest(model_ref="scripted:tokens=1", backend="cpu"))
    assert found is not None
    assert found.worker_id == worker_id
    assert hive.client.find_worker(wire.SpawnRequest(model_ref="scripted:tokens=2")) is None
