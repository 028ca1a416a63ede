"""Requests that are answered in numbers: vectors of texts, scores of documents."""

import math
from collections.abc import Iterator
from typing import Any

from rbee_core import wire
from rbee_core.backend import Embedded, EmbedRequest, Engine, Ranked, RerankRequest
from rbee_core.worker.jobs import Job, close


class Numbers(Job):
    """A request for vectors or scores. Each goes out as it comes; the last word counts the tokens that were read."""

    def _produce(self, engine: Engine) -> wire.DoneEvent:
        missing, prompt_tokens, first_ms = set(range(self._count())), 0, 0
        events = self._asked(engine)
        try:
            for event in events:
                told = _told(event)
                first_ms = first_ms or self._elapsed_ms()
                if told.index not in missing:
                    raise ValueError(f"the engine gave more than it was asked for: number {told.index}")
                missing.remove(told.index)
                prompt_tokens += event.prompt_tokens
                self._send(told)
        finally:
            close(events)
        if self.cancel.is_set():
            raise self._why
        if missing:
            raise TypeError(f"the engine gave nothing for {len(missing)} of {self._count()} texts")
        return wire.DoneEvent(
            done=True, total_tokens=0, duration_ms=self._elapsed_ms(), finish_reason="stop",
            prompt_tokens=prompt_tokens, first_token_ms=first_ms,
        )  # fmt: skip

    def _count(self) -> int:
        request = self.request
        return len(request.documents if isinstance(request, wire.RerankTask) else self._embed_task.texts)

    @property
    def _embed_task(self) -> wire.EmbedTask:
        assert isinstance(self.request, wire.EmbedTask)
        return self.request

    def _asked(self, engine: Engine) -> Iterator[Any]:
        request = self.request
        if isinstance(request, wire.RerankTask):
            return engine.rerank(RerankRequest(request.query, tuple(request.documents)), self.cancel)
        task = self._embed_task
        return engine.embed(EmbedRequest(tuple(task.texts), task.pooling, task.normalize), self.cancel)


def _told(event: object) -> wire.VectorEvent | wire.ScoreEvent:
    """Return what an engine yielded as it travels; raises what is wrong with it."""
    match event:
        case Embedded(index=int(index), vector=values):
            vector = [float(value) for value in values]
            if not vector or not all(map(math.isfinite, vector)):
                raise ValueError(f"the vector of text {index} has a number that is none")
            return wire.VectorEvent(vector=vector, index=index)
        case Ranked(index=int(index), score=given):
            score = float(given)
            if not math.isfinite(score):
                raise ValueError(f"the score of document {index} is no number")
            return wire.ScoreEvent(score=score, index=index)
        case _:
            raise TypeError(f"the engine yielded {event!r}")
