"""Vectors and scores on their way out of a worker: each once, and of numbers that JSON knows."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from rbee_core import wire
from rbee_core.backend import CancelToken, Embedded, EmbedRequest, Engine, EngineInfo, Ranked, RerankRequest
from rbee_core.worker.engine import EngineHost

EMBED = wire.EmbedTask(request_id="r", texts=["a", "b"])
RERANK = wire.RerankTask(request_id="r", query="q", documents=["a", "b"])


class Float32(float):
    """A number as numpy has them: no plain float, and as good as one."""


class Numbering(Engine):
    """Yields what it is told to."""

    def __init__(self, said: Sequence[Any]) -> None:
        self._said = said

    def info(self) -> EngineInfo:
        return EngineInfo(context_tokens=10)

    def generate(self, request: object, cancel: CancelToken) -> Iterator[Any]:
        raise NotImplementedError

    def embed(self, request: EmbedRequest, cancel: CancelToken) -> Iterator[Embedded]:
        yield from self._said

    def rerank(self, request: RerankRequest, cancel: CancelToken) -> Iterator[Ranked]:
        yield from self._said


def answered(task: wire.EmbedTask | wire.RerankTask, *said: object) -> list[Any]:
    async def collect() -> list[Any]:
        host = EngineHost(lambda _progress: Numbering(said), 1)
        await host.load()
        return [event async for batch in host.start(task, "worker-1").batches() for event in batch]

    return asyncio.run(collect())


def test_each_goes_out_as_it_comes_and_the_last_word_counts() -> None:
    events = answered(EMBED, Embedded(1, [1.0], 3), Embedded(0, [0.5], 4))
    assert events[:2] == [wire.VectorEvent(vector=[1.0], index=1), wire.VectorEvent(vector=[0.5], index=0)]
    assert events[2].prompt_tokens == 7


@pytest.mark.parametrize("score", [1, Float32(1.0)])
def test_a_score_may_be_any_number(score: Any) -> None:
    assert answered(RERANK, Ranked(0, score, 1), Ranked(1, score, 1))[0] == wire.ScoreEvent(score=1.0, index=0)


@pytest.mark.parametrize(
    ("task", "said", "why"),
    [
        (EMBED, [Embedded(0, [1.0], 1), Embedded(0, [1.0], 1)], "more than it was asked for: number 0"),
        (EMBED, [Embedded(2, [1.0], 1)], "more than it was asked for: number 2"),
        (EMBED, [Embedded(0, [1.0], 1)], "nothing for 1 of 2"),
        (EMBED, [Embedded(0, [float("nan")], 1)], "vector of text 0"),
        (EMBED, [Ranked(0, 1.0, 1)], "nothing for"),
        (RERANK, [Ranked(1, float("inf"), 1)], "score of document 1 is no number"),
        (RERANK, ["x"], "yielded 'x'"),
    ],
)
def test_what_an_engine_must_not_yield_is_its_fault_in_a_sentence(task: Any, said: Sequence[object], why: str) -> None:
    error = answered(task, *said)[-1]["error"]
    assert error["code"] == "PLUGIN_FAILED"
    assert why in error["message"]
