"""Asks for texts and takes note of when they come: of a worker through its hive, or of an endpoint of OpenAI's kind.

Several are asked for at once in threads that end with the process: none of them can hold up a command that is left.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import httpx
import msgspec

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_core.errors import RbeeError, shorten
from rbee_core.keeper.commands.bench.figures import Answer, Round

SENTENCE = "The bees of the old orchard fly out at dawn and bring nectar home until the evening wind begins to blow. "
SENTENCE_WORDS = len(SENTENCE.split())
CONNECT_S, SILENCE_S = 10.0, 600.0
DATA, END = "data:", "[DONE]"
_numbers = itertools.count(1000)


class Ask(Protocol):
    """Asks for one text and reads it to its end. Called in many threads at once."""

    def __call__(self, prompt: str, tokens: int) -> Answer:
        """Return what came. Raises an `RbeeError` for whatever else ended it."""
        ...


def prompt_of(words: int) -> str:
    """Return a prompt of about so many words. It begins like none before, so that nothing of it was read already."""
    return f"Note {next(_numbers)}. " + SENTENCE * max(1, words // SENTENCE_WORDS)


def together(ask: Ask, streams: int, words: int, tokens: int, hive_cpu_s: Callable[[], float | None]) -> Round:
    """Ask for so many texts at once. Raises what the first that failed ended with."""
    ended: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()

    def one(prompt: str) -> None:
        try:
            ended.put(ask(prompt, tokens))
        except BaseException as error:  # noqa: BLE001  # it is raised again where somebody waits for it
            ended.put(error)

    before, started = hive_cpu_s(), time.monotonic()
    for _ in range(streams):
        threading.Thread(target=one, args=(prompt_of(words),), daemon=True).start()
    answers: list[Answer] = []
    while len(answers) < streams:
        came = ended.get()
        if isinstance(came, BaseException):
            raise came
        answers.append(came)
    took_s, after = time.monotonic() - started, hive_cpu_s()
    return Round(answers, took_s, None if before is None or after is None else after - before)


class OfWorker:
    """Asks a worker. `connect` makes a connection for one text."""

    def __init__(self, connect: Callable[[], HiveClient], worker_id: str) -> None:
        self._connect, self._worker_id = connect, worker_id

    def __call__(self, prompt: str, tokens: int) -> Answer:
        """See `Ask`."""
        wanted = wire.build(wire.WorkerInference, prompt=prompt, max_tokens=tokens, temperature=0.0, reuse_prompt=False)
        with self._connect() as client:
            started, first_s, end = time.monotonic(), 0.0, wire.StreamEvent()
            for event in client.infer(self._worker_id, wanted):
                if event.token is not None and not first_s:
                    first_s = time.monotonic() - started
                end = event
        return Answer(end.prompt_tokens, end.total_tokens, first_s, time.monotonic() - started)


class OfEndpoint:
    """Asks `POST URL/chat/completions`, where `url` ends as a client's base URL does, such as ``…/v1``."""

    def __init__(self, url: str, model: str = "") -> None:
        self._url = url.rstrip("/")
        self._model = model or self._first_model()

    def __call__(self, prompt: str, tokens: int) -> Answer:
        """See `Ask`. Tokens are those of `usage`; of an endpoint that says none, the pieces are counted."""
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started, first_s, pieces, usage = time.monotonic(), 0.0, 0, dict[str, Any]()
        for chunk in self._chunks(body):
            usage = chunk.get("usage") or usage
            if any(_text(choice) for choice in chunk.get("choices") or ()):
                first_s = first_s or time.monotonic() - started
                pieces += 1
        took_s = time.monotonic() - started
        return Answer(int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", pieces)), first_s, took_s)

    def _chunks(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with self._http() as http:
            try:
                with http.stream("POST", f"{self._url}/chat/completions", json=body) as answer:
                    if answer.is_error:
                        answer.read()
                    self._check(answer)
                    data = (line[len(DATA) :].strip() for line in answer.iter_lines() if line.startswith(DATA))
                    for text in itertools.takewhile(lambda text: text != END, data):
                        yield self._read(text)
            except httpx.HTTPError as error:
                raise self._failed(str(error) or type(error).__name__) from error

    def _first_model(self) -> str:
        try:
            with self._http() as http:
                answer = http.get(f"{self._url}/models")
                self._check(answer)
                models = self._read(answer.text).get("data")
        except httpx.HTTPError as error:
            raise self._failed(str(error) or type(error).__name__) from error
        if not models:
            raise self._failed("it has no models")
        return str(models[0].get("id"))

    def _http(self) -> httpx.Client:
        return httpx.Client(timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S), trust_env=False)

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_error:
            raise self._failed(f"status {answer.status_code}, {shorten(answer.text)}")

    def _read(self, text: str) -> dict[str, Any]:
        try:
            return msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise self._failed(f"what it says cannot be read: {error}") from error

    def _failed(self, why: str) -> RbeeError:
        return RbeeError(
            f"{self._url} cannot be measured: {why}", hint="a base URL ends in /v1; --url-model names a model"
        )


def _text(choice: dict[str, Any]) -> str:
    delta: dict[str, Any] = choice.get("delta") or {}
    return delta.get("content") or delta.get("reasoning_content") or ""
