"""Vectors and scores through a hive, with scripted workers: the same doors, slots and ends as for text."""

import json

import httpx
import pytest

from rbee_core import wire
from rbee_core.domain.tuning import Adapter, Tuning
from rbee_core.errors import RemoteError
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually
from tests.support.gguf_models import lora, ranker

pytestmark = pytest.mark.scripted


def wanted(script: str, *texts: str, **fields: object) -> wire.PoolEmbed:
    return wire.build(wire.PoolEmbed, model_ref=f"scripted:{script}", texts=list(texts), **fields)


def refused(hive: Hive, request: wire.PoolEmbed) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        hive.client.embed(request)
    return caught.value


def idle(hive: Hive) -> bool:
    return [worker.state for worker in hive.client.list_workers()] == ["idle"]


def test_vectors_come_in_the_order_of_their_texts_from_a_worker_that_text_comes_from_too(home: Home) -> None:
    hive = home.start_hive()
    assert hive.client.embed(wanted("", "a bee", "honey", "x")) == [[5, 3], [5, 5], [1, 1]]
    [worker] = hive.client.list_workers()
    assert hive.client.embed(wanted("", "wax")) == [[3, 3]]
    text = hive.client.infer(worker.worker_id, wire.InferenceRequest(prompt="hello"))
    assert list(text)[-1].total_tokens == 20
    eventually(lambda: idle(hive), what="its slot is free")
    assert [w.worker_id for w in hive.client.list_workers()] == [worker.worker_id]


def test_what_a_backend_does_not_declare_is_refused_by_name(home: Home) -> None:
    hive = home.start_hive()
    with pytest.raises(RemoteError, match="Backend scripted does not know documents: that needs rerank") as caught:
        hive.client.rerank(wire.PoolRerank(model_ref="scripted:", backend="scripted", query="a", documents=["b"]))
    assert (caught.value.code, caught.value.http_status) == ("NOT_SUPPORTED", 422)
    for tuning, field in (
        (Tuning(lora=(Adapter("/a.gguf"),)), "tuning.lora"),
        (Tuning(cache_type_k="q8_0"), "tuning.cache_type_k"),
        (Tuning(flash_attention=False), "tuning.flash_attention"),
        (Tuning(speculation="off"), "tuning.speculation"),
    ):
        with pytest.raises(RemoteError, match=field):
            hive.client.spawn(wire.SpawnRequest(model_ref="scripted:", tuning=tuning))
    gap = wire.PoolInference(model_ref="scripted:", backend="scripted", prompt="a", suffix="b")
    with pytest.raises(RemoteError, match="infill"):
        list(hive.client.infer_with_model(gap))
    assert hive.client.list_workers() == []


def test_the_command_prints_a_line_for_each_text(home: Home) -> None:
    lines = home.rbee("embed", "--model", "scripted:", "--file", "-", "a bee", stdin=b"honey\n\nx\n")
    assert (lines.exit_code, lines.stdout.splitlines()) == (0, ["[5.0,3.0]", "[5.0,5.0]", "[1.0,1.0]"]), lines.stderr
    whole = home.rbee("embed", "--model", "scripted:", "wax", "--json")
    assert json.loads(whole.stdout) == {"model": "scripted:", "vectors": [[3.0, 3.0]]}


def test_the_command_says_what_no_backend_of_a_model_knows(home: Home) -> None:
    refused = home.rbee("infer", "--model", "scripted:", "--lora", "/a.gguf:0.5", "hello")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "tuning.lora: that needs lora" in refused.why, refused.why


def test_the_test_model_makes_vectors_if_it_is_told_how_and_takes_no_adapter_of_another(home: Home) -> None:
    home.start_hive()
    refused = home.rbee("embed", "hello")
    assert (refused.exit_code, refused.stdout) == (2, ""), refused.stderr
    assert "does not say how the tokens of a text become one" in refused.why
    assert "mean or last" in refused.stderr

    told = home.rbee("embed", "--pooling", "mean", "hello", "a bee")
    assert [len(json.loads(line)) for line in told.stdout.splitlines()] == [576, 576], told.stderr

    other = lora(home.folder / "a.gguf", tensors=("blk.0.attn_q.weight",), shapes=(576, 576), architecture="qwen3")
    refused = home.rbee("infer", "--lora", f"{other}:0.5", "hello")
    assert (refused.exit_code, refused.stdout) == (2, ""), refused.stderr
    assert "is for qwen3" in refused.why


def test_documents_are_put_in_order_as_foreign_clients_ask_for_it(home: Home) -> None:
    hive, model = home.start_hive(), ranker(home.folder / "ranker.gguf")
    documents = ["a bee", "honey and wax", "x"]
    scores = hive.client.rerank(wire.PoolRerank(model_ref=f"file:{model}", query="a bee", documents=documents))
    body = {"model": f"file:{model}", "query": "a bee", "documents": documents, "return_documents": True}
    answer = httpx.post(f"http://127.0.0.1:{hive.port}/v1/rerank", json=body, timeout=60).json()
    told = [(one["relevance_score"], one["document"]["text"]) for one in answer["results"]]
    assert told == sorted(zip(scores, documents, strict=True), key=lambda one: -one[0])
    refused = httpx.post(f"http://127.0.0.1:{hive.port}/v1/rerank", json=body | {"model": "scripted:"}, timeout=60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "NOT_SUPPORTED")
    assert len(hive.client.list_workers()) == 1, "nobody asks a hive for what it cannot do at the cost of a load"


def test_settings_hold_for_backends_that_know_them_alone(home: Home) -> None:
    home.environment |= {"RBEE_CACHE_TYPE_K": "q8_0", "RBEE_FLASH_ATTENTION": "on"}
    assert home.start_hive().client.embed(wanted("", "bee")) == [[3, 3]]


def test_a_deadline_and_a_worker_that_dies_end_vectors_as_they_end_text(home: Home) -> None:
    hive = home.start_hive()
    late = refused(hive, wanted("token_ms=3600000", "a", timeout_s=0.5))
    assert (late.code, late.http_status) == ("DEADLINE_EXCEEDED", 408)
    dead = refused(hive, wanted("crash_at_token=0:KILL", "a", "b"))
    assert dead.code == "WORKER_CRASHED"
