"""What the hive counts, and how it is told: read back by Prometheus's own parser."""

import json
import re
from pathlib import Path

import pytest

from rbee_core import wire
from rbee_core.domain.worker import Reason, WorkerState
from rbee_core.hive.metrics import exposition
from rbee_core.hive.metrics.names import METRICS
from rbee_core.hive.metrics.now import look
from rbee_core.hive.metrics.numbers import LEFT, MODELS_MOST, OTHER, Ended, Histogram, Numbers
from tests.support.metrics import samples as read
from tests.support.pools import recipe

ROOT = Path(__file__).parents[2]
DONE = wire.StreamEvent(
    done=True, finish_reason="stop", total_tokens=11, prompt_tokens=40, cached_tokens=30,
    first_token_ms=200, duration_ms=1200,
)  # fmt: skip
NOTHING = look([], {}, {}, str, str)


def samples(numbers: Numbers, *, vllm: bool = False) -> dict[tuple[str, ...], float]:
    return read(exposition.text(numbers, NOTHING, vllm=vllm).decode())


def change(before: str | None, after: str, reason: Reason, worker_id: str = "w1") -> wire.WorkerChanged:
    worker = wire.WorkerInfo(worker_id=worker_id, model_ref="m", backend="b", device="cpu", state="idle")
    return wire.WorkerChanged(
        number=1, at_unix=0, worker_id=worker_id, before=before, after=after, reason=reason.value, worker=worker
    )


def test_a_request_is_counted_with_its_figures() -> None:
    numbers = Numbers()
    numbers.ended(Ended(outcome="stop", whole_s=1.5, model="m", queue_s=0.3, figures=DONE))
    numbers.ended(Ended(outcome="ALL_SLOTS_BUSY", whole_s=0.001))
    numbers.ended(Ended(outcome=LEFT, whole_s=2, model="m", queue_s=0.1))
    found = samples(numbers)
    assert found["rbee_requests_total", "m", "stop"] == 1
    assert found["rbee_requests_total", "", "ALL_SLOTS_BUSY"] == 1
    assert found["rbee_requests_total", "m", "left"] == 1
    tokens = [found[f"rbee_{kind}_tokens_total", "m"] for kind in ("prompt", "cached", "generated")]
    assert tokens == [40, 30, 11]
    assert found["rbee_time_to_first_token_seconds_sum", "m"] == pytest.approx(0.5)
    assert found["rbee_time_to_first_token_seconds_bucket", "m", "0.25"] == 0
    assert found["rbee_time_to_first_token_seconds_bucket", "m", "0.5"] == 1
    assert found["rbee_time_to_first_token_seconds_bucket", "m", "+Inf"] == 1
    assert (found["rbee_inter_token_seconds_count", "m"], found["rbee_inter_token_seconds_sum", "m"]) == (10, 1.0)
    assert found["rbee_prefill_seconds_sum", "m"] == pytest.approx(0.2)
    assert found["rbee_decode_seconds_sum", "m"] == 1.0
    assert found["rbee_queue_seconds_count", "m"] == 2
    assert found["rbee_request_seconds_sum", "m"] == 3.5


def test_what_a_request_used_of_its_context_is_told() -> None:
    numbers = Numbers()
    numbers.ended(Ended(outcome="stop", whole_s=1, model="m", queue_s=0, figures=DONE, context_tokens=204))
    numbers.ended(Ended(outcome="stop", whole_s=1, model="m", queue_s=0, figures=DONE, context_tokens=510))
    numbers.ended(Ended(outcome=LEFT, whole_s=1, model="m", queue_s=0, context_tokens=510))
    assert samples(numbers)["rbee_context_used_ratio", "m"] == pytest.approx(0.1)


def test_vllms_names_are_there_on_request_and_say_the_same() -> None:
    numbers = Numbers()
    numbers.ended(Ended(outcome="stop", whole_s=1.5, model="m", queue_s=0.3, figures=DONE))
    numbers.ended(Ended(outcome="WORKER_CRASHED", whole_s=1, model="m", queue_s=0.3))
    plain, both = samples(numbers), samples(numbers, vllm=True)
    assert not [name for name, *_ in plain if name.startswith("vllm:")]
    assert plain.items() <= both.items()
    assert both["vllm:generation_tokens_total", "m"] == 11
    assert both["vllm:time_to_first_token_seconds_count", "m"] == 1
    assert {key: both[key] for key in both if key[0] == "vllm:request_success_total"} == {
        ("vllm:request_success_total", "m", "stop"): 1
    }


def test_workers_are_counted_by_why_they_ended() -> None:
    now = 100.0
    numbers = Numbers(clock=lambda: now)
    numbers.changed(change(None, "launching", Reason.WANTED))
    numbers.changed(change("launching", "loading", Reason.BOUND))
    now = 103.0
    numbers.changed(change("loading", "idle", Reason.LOADED))
    numbers.changed(change("idle", "stopping", Reason.MAKE_ROOM))
    numbers.changed(change("stopping", WorkerState.EVICTED, Reason.EXITED))
    numbers.changed(change(None, "launching", Reason.WANTED, "w2"))
    numbers.changed(change("busy", WorkerState.CRASHED, Reason.EXITED, "w2"))
    found = samples(numbers)
    assert found["rbee_worker_starts_total", "m", "b", "cpu"] == 2
    assert found["rbee_worker_exits_total", "m", "b", "cpu", "make_room"] == 1
    assert found["rbee_worker_exits_total", "m", "b", "cpu", "crashed"] == 1
    assert found["rbee_model_load_seconds_sum", "m", "b", "cpu"] == 3.0


def test_labels_are_bounded_however_many_models_are_asked_for() -> None:
    numbers = Numbers()
    for n in range(1000):
        numbers.ended(Ended(outcome="stop", whole_s=1, model=f"m{n}", queue_s=0, figures=DONE))
    found = samples(numbers)
    assert len([key for key in found if key[0] == "rbee_requests_total"]) == MODELS_MOST + 1
    assert found["rbee_requests_total", OTHER, "stop"] == 1000 - MODELS_MOST


def test_a_name_may_hold_whatever_a_path_does() -> None:
    numbers = Numbers()
    strange = 'file:/a "b"\\c\nd é'
    numbers.ended(Ended(outcome="stop", whole_s=1, model=strange, queue_s=0, figures=DONE))
    assert samples(numbers)["rbee_requests_total", strange, "stop"] == 1


def test_the_names_are_those_of_the_page_and_of_prometheus() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in page.splitlines() if "`" in line
    ]
    listed = {row[0]: (row[1], row[2].replace("`", ""), row[3], row[4]) for row in rows if row[0].startswith("rbee_")}
    assert listed == {m.name: (m.kind, ", ".join(m.labels), m.vllm, m.help) for m in METRICS}
    assert [m.name for m in METRICS if (m.kind == "counter") != m.name.endswith("_total")] == []
    assert [m.name for m in METRICS if m.kind == "histogram" and not m.name.endswith("_seconds")] == []


def test_every_query_of_the_dashboard_asks_for_what_is_exported() -> None:
    board = json.loads((ROOT / "docs/grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    parts = ("_bucket", "_sum", "_count")
    exported = {m.name + part for m in METRICS for part in (parts if m.kind == "histogram" else ("",))}
    labels = {m.name + part: {*m.labels, "le"} for m in METRICS for part in ("", *parts)}
    for query in queries:
        asked = re.findall(r"\brbee_\w+", query)
        assert asked, query
        assert set(asked) <= exported, query
        by = {name.strip() for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(",")}
        assert all(by <= labels[name] for name in asked), query
    assert {name.removesuffix("_bucket") for q in queries for name in re.findall(r"\brbee_\w+", q)} >= {
        m.name for m in METRICS if m.kind != "histogram" and m.name != "rbee_build_info"
    }


def test_what_is_within_a_bound_is_counted_there() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(("m",), value)
    assert histogram.counts["m",] == [2, 1, 1]


def test_how_things_stand_is_looked_at_by_model_and_device() -> None:
    from rbee_core.domain.worker import Secret, Ticket, Worker, WorkerId

    worker = Worker(id=WorkerId("w1"), recipe=recipe("a"), secret=Secret(""), launched_at=0, slots=4)
    worker.requests[Ticket(1)] = "r"  # pyright: ignore[reportArgumentType]
    now = look([worker], {"file:/b": 3}, {"total": 9}, str, str)
    assert (now.running, now.slots, now.waiting) == ({("file:/a",): 1}, {("file:/a",): 4}, {("file:/b",): 3})
    assert now.workers == {("launching", "scripted"): 1}
    assert now.memory == {("reserved", "cpu"): 100, ("total", "host"): 9}


def test_names_that_clients_make_up_take_no_label_away() -> None:
    numbers = Numbers()
    now = look([], {f"file:/{n}": 1 for n in range(500)}, {}, numbers.name, numbers.known)
    assert now.waiting == {(OTHER,): 500}
    assert numbers.name("file:/real") == "file:/real"
