"""What the engine does for one request beside the computing, with stand-ins for the model and the loop."""

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("llama_cpp")

from rbee_core.backend import EngineInfo, GenerateRequest, Message, Style
from rbee_plugins.llamacpp.engine import LlamaCppEngine
from rbee_plugins.llamacpp.jobs import Job

THINKS = Style(reasoning=("<think>", "</think>"))


class Loop:
    """Takes jobs and never says anything."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, job: Job) -> Iterator[Any]:
        self.jobs.append(job)
        return job.follow()


def engine(loop: Loop) -> Any:
    model: Any = SimpleNamespace(
        special_texts=lambda: ("", ""), adds_bos=lambda: False, tokenize=lambda text, **_: list(text)
    )
    chat: Any = SimpleNamespace(render=lambda *_, **__: "Hi!", style=lambda *_: THINKS)
    made: Any = LlamaCppEngine(model, loop, chat, EngineInfo(context_tokens=64), model)  # type: ignore[arg-type]
    made._samplers = SimpleNamespace(build=lambda *_: object())
    return made


def test_whoever_leaves_before_the_first_token_has_left_the_loop_too() -> None:
    loop = Loop()
    request = GenerateRequest(messages=(Message("user", "Hi"),))
    events = engine(loop).generate(request, threading.Event())
    assert next(events) == THINKS
    events.close()
    assert [job.gone() for job in loop.jobs] == [True]
