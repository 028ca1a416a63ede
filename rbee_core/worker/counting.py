"""Requests for the number of a prompt's tokens."""

import asyncio

from rbee_core import wire
from rbee_core.backend import Engine
from rbee_core.worker.jobs import Job
from rbee_core.worker.wanted import generate_request


class Counting(Job):
    """A request that is read as one for text would be, and not answered. The last word has the count."""

    def __init__(self, request: wire.CountTask, loop: asyncio.AbstractEventLoop, template: bool | None) -> None:
        super().__init__(request, loop)
        self._wanted = request
        self._template = template

    def _produce(self, engine: Engine) -> wire.DoneEvent:
        wanted = generate_request(self._wanted, self._template)
        tokens = engine.count(wanted, self.cancel)
        if self.cancel.is_set():
            raise self._why
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"the engine counted {tokens!r} tokens")
        return wire.DoneEvent(
            done=True, total_tokens=0, duration_ms=self._elapsed_ms(), finish_reason="stop", prompt_tokens=tokens,
            chat_template=bool(wanted.messages and self._template),
        )  # fmt: skip
