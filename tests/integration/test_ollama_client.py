"""Ollama's own package against a hive: `OLLAMA_HOST` is all that its user sets."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import ollama
import pytest

from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually
from tests.support.hub import Hub

SAY_HI: Any = [{"role": "user", "content": "Say hi"}]
SHORT: Any = {"num_predict": 6, "temperature": 0}
UNLOAD = {"model": "smollm2", "keep_alive": 0, "stream": False}
GGUF = b"GGUF" + bytes(1_500_000)


@pytest.fixture
def hub(home: Home) -> Iterator[Hub]:
    """A hub that the hive knows which starts after it."""
    with Hub() as hub:
        home.environment["HF_ENDPOINT"] = hub.url
        yield hub


@pytest.fixture
def hive(home: Home, monkeypatch: pytest.MonkeyPatch) -> Hive:
    hive = home.start_hive()
    monkeypatch.setenv("OLLAMA_HOST", f"http://127.0.0.1:{hive.port}")
    return hive


@pytest.fixture
def client(hive: Hive) -> Iterator[ollama.Client]:
    del hive
    with ollama.Client() as client:
        yield client


def test_what_is_here_with_the_real_model(client: ollama.Client, hive: Hive) -> None:
    [model] = client.list().models
    assert model.model == "smollm2"
    assert model.details is not None
    assert (model.details.format, model.details.family, model.details.quantization_level) == ("gguf", "llama", "Q4_1")
    assert model.details.parameter_size == "134.5M"
    assert model.modified_at is not None
    assert model.size is not None
    assert model.size > 90_000_000
    assert len(model.digest or "") == 64

    for name in ("smollm2", "smollm2:latest"):
        shown = client.show(name)
        assert shown.modelinfo is not None
        assert shown.modelinfo["general.architecture"] == "llama"
        assert shown.modelinfo["llama.context_length"] > 0
        assert shown.capabilities == ["completion"]
        assert "im_start" in (shown.template or "")
    assert client.ps().models == []
    with pytest.raises(ollama.ResponseError, match="no model or alias has this name") as missing:
        client.show("llama3.2:latest")
    assert missing.value.status_code == 404

    strict = httpx.get(f"http://127.0.0.1:{hive.port}/api/tags").json()["models"][0]
    assert strict.keys() >= {"name", "model", "modified_at", "size", "digest", "details"}
    assert strict["details"].keys() >= {"format", "family", "families", "parameter_size", "quantization_level"}
    version = httpx.get(f"http://127.0.0.1:{hive.port}/api/version").json()
    assert tuple(map(int, version["version"].split("."))) >= (0, 6, 4)
    assert httpx.head(f"http://127.0.0.1:{hive.port}/").status_code == 200


def test_work_with_the_real_model(client: ollama.Client, hive: Hive) -> None:
    loaded = client.generate("smollm2", keep_alive="10m")
    assert (loaded.done_reason, loaded.response) == ("load", "")
    [running] = client.ps().models
    assert running.name == "smollm2"
    assert running.context_length == (client.show("smollm2").modelinfo or {})["llama.context_length"]
    assert running.expires_at is not None
    assert running.expires_at > datetime.now(UTC) + timedelta(minutes=5), "it is kept as long as was said"

    whole = client.chat("smollm2:latest", SAY_HI, options=SHORT)
    assert whole.message.content
    assert (whole.model, whole.done, whole.done_reason, whole.eval_count) == ("smollm2:latest", True, "length", 6)
    assert whole.total_duration
    *told, last = client.chat("smollm2", SAY_HI, options=SHORT, stream=True, keep_alive=-1)
    assert "".join(line.message.content or "" for line in told) == whole.message.content
    assert [line.done for line in told] == [False] * len(told)
    assert (last.done, last.done_reason, last.message.content, last.eval_count) == (True, "length", "", 6)
    assert last.prompt_eval_count == whole.prompt_eval_count
    [running] = client.ps().models
    assert running.expires_at is not None
    assert running.expires_at.year == 3000

    client.chat("smollm2", SAY_HI, options=SHORT)
    [running] = client.ps().models
    assert running.expires_at is not None
    assert running.expires_at < datetime.now(UTC) + timedelta(minutes=6), "each request says it anew"

    with pytest.raises(ollama.ResponseError, match="in use by worker-") as held:
        client.delete("smollm2")
    assert held.value.status_code == 409
    asked = client.generate("smollm2", "Say hi", options={**SHORT, "num_ctx": 512})
    assert asked.response == whole.message.content
    assert len(client.ps().models) == 1, "the worker that is there has that much context"
    raw = client.generate("smollm2", "one two three", raw=True, options=SHORT, stream=True)
    assert "".join(line.response or "" for line in raw)
    schema = {"type": "object", "properties": {"bees": {"enum": [1, 2]}}, "required": ["bees"]}
    fitting = client.chat("smollm2", SAY_HI, format=schema, options={"num_predict": 40, "temperature": 0})
    assert json.loads(fitting.message.content or "")["bees"] in (1, 2)
    likely = client.chat("smollm2", SAY_HI, options=SHORT, logprobs=True, top_logprobs=2).logprobs or []
    assert [len(token.top_logprobs or ()) for token in likely] == [2] * 6

    gone = httpx.post(f"http://127.0.0.1:{hive.port}/api/generate", json=UNLOAD)
    assert (gone.headers["content-type"], gone.json()["done_reason"]) == ("application/json", "unload")
    eventually(lambda: client.ps().models == [], what="its worker is gone")


def test_models_come_and_go_as_they_are_told_to(hub: Hub, client: ollama.Client) -> None:
    file = hub.add("org/bees/bees-Q4_K_M.gguf", GGUF, bytes_per_s=3_000_000)
    name = "hf.co/org/bees:latest"
    with pytest.raises(ollama.ResponseError, match="it is not on this node"):
        client.chat(name, SAY_HI)
    assert hub.requests == [], "who asks for a text fetches nothing"

    *bar, last = client.pull(name, stream=True)
    assert last.status == "success"
    assert {(told.digest, told.total) for told in bar} == {(f"sha256:{file.sha256}", len(GGUF))}
    done = [told.completed or 0 for told in bar]
    assert done == sorted(done)
    assert done[-1] == len(GGUF)
    assert "hf:org/bees" in [model.model for model in client.list().models]
    asked = len(hub.requests)
    assert client.pull(name).status == "success"
    assert len(hub.requests) == asked, "it is here"

    assert client.delete(name).status == "success"
    assert "hf:org/bees" not in [model.model for model in client.list().models]
    with pytest.raises(ollama.ResponseError, match="not in the catalog") as gone:
        client.delete(name)
    assert gone.value.status_code == 404


def test_a_model_that_does_not_come_is_an_error_before_the_first_line_or_after_it(
    hub: Hub, client: ollama.Client
) -> None:
    for name, words in (("llama3.2:latest", "hf.co/ORGANISATION"), ("hf.co/org/none", "has no such model")):
        with pytest.raises(ollama.ResponseError, match=words) as missing:
            client.pull(name)
        assert missing.value.status_code == 404
    hub.add("org/wrong/wrong-Q4_K_M.gguf", GGUF, wrong_bytes_times=-1)
    seen: list[str] = []
    with pytest.raises(ollama.ResponseError, match="arrived twice"):
        seen.extend(told.status or "" for told in client.pull("hf.co/org/wrong", stream=True))
    assert seen
    assert "success" not in seen


@pytest.mark.scripted
def test_vectors(client: ollama.Client, hive: Hive) -> None:
    assert client.embed("scripted:", []).embeddings == []
    assert [model.name for model in client.ps().models] == ["scripted:"], "which is how it is loaded"
    late = httpx.post(
        f"http://127.0.0.1:{hive.port}/api/generate",
        json={"model": "scripted:load_s=60", "stream": False},
        headers={"X-Request-Timeout": "0.2"},
        timeout=60,
    )
    assert (late.status_code, late.json()["code"]) == (408, "DEADLINE_EXCEEDED")
    made = client.embed("scripted:", ["a bee", "honey"])
    assert made.embeddings == [[5, 3], [5, 5]]
    [short] = client.embed("scripted:", "a bee", dimensions=1).embeddings
    assert short == [1.0]
    older = client.embeddings("scripted:", "a bee").embedding
    assert len(older) == len(made.embeddings[0])
    with pytest.raises(ollama.ResponseError, match="was not made for vectors") as refused:
        client.embed("smollm2", "a bee")
    assert refused.value.status_code == 400


@pytest.mark.scripted
def test_what_goes_wrong_is_the_clients_own_exception(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="rbee models pull hf:someone/something") as missing:
        client.chat("hf.co/someone/something", SAY_HI)
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match=r"options\.temperature") as wrong:
        client.chat("smollm2", SAY_HI, options={"temperature": 9})
    assert wrong.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="images"):
        client.chat("smollm2", [{"role": "user", "content": "what is it?", "images": ["YQ=="]}])
    said: list[str] = []
    stream = client.chat("scripted:crash_at_token=3:KILL;token_ms=100", SAY_HI, stream=True)
    with pytest.raises(ollama.ResponseError, match="crashed"):
        said.extend(line.message.content or "" for line in stream)
    assert said
    assert client.chat("scripted:", SAY_HI).done_reason == "stop"


@pytest.mark.scripted
def test_a_silent_stream_says_that_it_lives_and_clients_do_not_mind(hive: Hive, client: ollama.Client) -> None:
    silent = {"model": "scripted:load_s=1.5;prefill_s=1.5;tokens=2", "messages": SAY_HI}
    with httpx.stream("POST", f"http://127.0.0.1:{hive.port}/api/chat", json=silent, timeout=60) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        text = "".join(answer.iter_text())
    assert len(text) - len(text.lstrip(" ")) >= 2
    assert [json.loads(line)["done"] for line in text.splitlines()] == [False, False, True]
    assert [line.done for line in client.chat(silent["model"] + ";slots=1", SAY_HI, stream=True)] == [
        False,
        False,
        True,
    ]
