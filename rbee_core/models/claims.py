"""Who is at a model's files: any number may look for them or bring them, one may remove them, never both.

For the event loop's thread alone. A worker that has loaded a model is not told here: that is the pool's to know.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from rbee_core.errors import ModelInUse


class Claims:
    """The claims on one node's models, by canonical reference."""

    def __init__(self) -> None:
        self._users: Counter[str] = Counter()
        self._removals: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def using(self, reference: str) -> AsyncGenerator[None]:
        """Keep a model's files from being removed for the length of the context; waits while they are."""
        while removal := self._removals.get(reference):
            await removal.wait()
        self._users[reference] += 1
        try:
            yield
        finally:
            self._users[reference] -= 1
            if not self._users[reference]:
                del self._users[reference]

    @contextmanager
    def removing(self, reference: str) -> Generator[None]:
        """Keep others from a model's files for the length of the context. Raises `ModelInUse` if they are used."""
        if reference in self._users or reference in self._removals:
            raise ModelInUse(reference=reference, users=["a request that is being prepared"])
        over = self._removals[reference] = asyncio.Event()
        try:
            yield
        finally:
            del self._removals[reference]
            over.set()
