"""Steps about clients that were written for Ollama."""

import json
from datetime import datetime
from typing import Any

import httpx
from pytest_bdd import given, parsers, then, when

from rbee_core import wire
from rbee_kit.loaded import Loaded
from step_defs.support import Hive, eventually

SAY_HI = [{"role": "user", "content": "Say hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"bees": {"enum": [1, 2]}},
    "required": ["bees"],
    "additionalProperties": False,
}
ELSEWHERE = "hf.co/someone/something"
EDITORS_TAKE = (0, 6, 4)
NS_IN_MS, NS_IN_S = 1_000_000, 1_000_000_000
DIGEST_BYTES = 32
DETAILS = {"format", "family", "families", "parameter_size", "quantization_level"}
TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def ask(hive: Hive, method: str, path: str, **body: Any) -> httpx.Response:
    url = f"http://127.0.0.1:{hive.port}/api/{path}"
    return httpx.request(method, url, json=body or None, timeout=60, trust_env=False)


def chat(loaded: Loaded, tokens: int, options: dict[str, Any] | None = None, **fields: Any) -> httpx.Response:
    said = {"model": loaded.worker.model_ref, "messages": SAY_HI}
    chosen = {"num_predict": tokens, "temperature": 0} | (options or {})
    return ask(loaded.hive, "POST", "chat", **(said | {"options": chosen} | fields))


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"] == "application/x-ndjson", answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def workers(loaded: Loaded) -> list[str]:
    return sorted(worker.worker_id for worker in loaded.hive.client.list_workers())


def running(hive: Hive) -> list[dict[str, Any]]:
    return ask(hive, "GET", "ps").json()["models"]


@when("a client of Ollama asks for the release", target_fixture="answer")
def ask_for_release(loaded: Loaded) -> httpx.Response:
    return ask(loaded.hive, "GET", "version")


@when("a client of Ollama lists the models", target_fixture="answer")
def list_models(loaded: Loaded) -> httpx.Response:
    return ask(loaded.hive, "GET", "tags")


@when("a client of Ollama has the model shown", target_fixture="answer")
def have_shown(loaded: Loaded) -> httpx.Response:
    return ask(loaded.hive, "POST", "show", model=f"{loaded.worker.model_ref}:latest")


@given("a client of Ollama has had a chat of 1 token")
def has_had_chat(loaded: Loaded) -> None:
    assert chat(loaded, 1).status_code == 200


@when(parsers.parse("a client of Ollama asks for a chat of {tokens:d} tokens"), target_fixture="answer")
def ask_for_chat(loaded: Loaded, tokens: int) -> httpx.Response:
    return chat(loaded, tokens)


@when(parsers.parse("a client of Ollama has a text continued by {tokens:d} tokens"), target_fixture="answer")
def have_continued(loaded: Loaded, tokens: int) -> httpx.Response:
    said = {"model": loaded.worker.model_ref, "prompt": "one two three", "raw": True}
    return ask(loaded.hive, "POST", "generate", **said, options={"num_predict": tokens, "temperature": 0})


@when("a client of Ollama asks for an answer that fits a schema", target_fixture="answer")
def ask_for_form(loaded: Loaded) -> httpx.Response:
    return chat(loaded, 40, format=SCHEMA, stream=False)


@when(parsers.parse("a client of Ollama asks for a chat with a window of {window:d} tokens"), target_fixture="before")
def ask_with_window(loaded: Loaded, window: int) -> list[str]:
    """Return the workers that were there before."""
    before = workers(loaded)
    assert chat(loaded, 1, {"num_ctx": window}).status_code == 200
    return before


@when(parsers.parse("a client of Ollama has it loaded with a window of {window:d} tokens"))
def have_loaded(hive: Hive, model: str, window: int) -> None:
    answer = ask(hive, "POST", "generate", model=model, options={"num_ctx": window}, stream=False)
    assert answer.json()["done_reason"] == "load"


@when("a client of Ollama asks that its model be kept for no time", target_fixture="answer")
def let_go(hive: Hive, worker: wire.WorkerInfo) -> httpx.Response:
    return ask(hive, "POST", "generate", model=worker.model_ref, keep_alive=0)


@when("a client of Ollama asks for a model that is not here", target_fixture="answer")
def ask_for_missing(loaded: Loaded) -> httpx.Response:
    return chat(loaded, 1, model=ELSEWHERE)


@then("it is one that editors take")
def is_taken(answer: httpx.Response) -> None:
    assert tuple(map(int, answer.json()["version"].split("."))) >= EDITORS_TAKE


@then("the model is listed with every field that a strict client wants")
def is_listed(loaded: Loaded, answer: httpx.Response) -> None:
    [model] = answer.json()["models"]
    assert model["name"] == model["model"]
    assert datetime.fromisoformat(model["modified_at"]).tzinfo is not None
    assert len(bytes.fromhex(model["digest"])) == DIGEST_BYTES
    assert model["size"] > 0
    assert model["details"].keys() >= DETAILS
    assert [name for name in sorted(DETAILS) if not model["details"][name]] == []


@then("it is said to complete texts, and to have the window of its worker")
def is_shown(loaded: Loaded, answer: httpx.Response) -> None:
    shown = answer.json()
    family = shown["model_info"]["general.architecture"]
    assert "completion" in shown["capabilities"]
    assert shown["model_info"][f"{family}.context_length"] == loaded.worker.context_tokens


@then("each line but the last is a piece of the answer")
def are_pieces(answer: httpx.Response) -> None:
    *told, last = lines_of(answer)
    assert told
    assert all((line["done"], line["message"]["role"]) == (False, "assistant") for line in told)
    assert all(line["message"]["content"] for line in told)
    assert last["message"]["content"] == ""


@then(parsers.parse("the last line counts {tokens:d} tokens and says that this was the limit"))
def last_counts(answer: httpx.Response, tokens: int) -> None:
    last = lines_of(answer)[-1]
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", tokens)
    assert last["prompt_eval_count"] > 0


@then("its times are nanoseconds")
def are_nanoseconds(answer: httpx.Response) -> None:
    last = lines_of(answer)[-1]
    assert [name for name in TIMES if not isinstance(last[name], int)] == []
    longest = answer.elapsed.total_seconds() * NS_IN_S + NS_IN_MS
    assert NS_IN_MS <= last["total_duration"] <= longest
    assert last["eval_duration"] <= last["total_duration"]


@then("the answer fits")
def answer_fits(answer: httpx.Response) -> None:
    assert json.loads(answer.json()["message"]["content"]) in ({"bees": 1}, {"bees": 2})


@then("it is answered, and by no new worker")
def no_new_worker(loaded: Loaded, before: list[str]) -> None:
    assert workers(loaded) == before
    assert loaded.worker.context_tokens in [model["context_length"] for model in running(loaded.hive)]


@then(parsers.parse("one model is loaded, with a window of {window:d} tokens"))
def has_window(hive: Hive, window: int) -> None:
    assert [model["context_length"] for model in running(hive)] == [window]


@then("it is told that the model goes")
def is_told(answer: httpx.Response) -> None:
    [said] = lines_of(answer)
    assert (said["done"], said["done_reason"]) == (True, "unload")


@then("soon no model is loaded")
def nothing_is_loaded(hive: Hive) -> None:
    eventually(lambda: not running(hive), what="its worker is gone")


@then("it is refused in a sentence that says what to do")
def is_refused(answer: httpx.Response) -> None:
    said = answer.json()
    assert (answer.status_code, said["code"]) == (404, "MODEL_NOT_FOUND")
    assert "rbee models pull" in said["error"]
