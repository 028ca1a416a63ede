"""Both transports of the client behind one face, so that one test is about both."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Self, TypeVar

from rbee_core import wire
from rbee_core.client import ClientTerms, HiveClient
from rbee_core.client.aio import AsyncHiveClient
from rbee_core.client.calls import Call

T = TypeVar("T")


class Blocking:
    """The asynchronous client as a blocking one."""

    def __init__(self, host: str, port: int, terms: ClientTerms, *, https: bool = False) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncHiveClient(host, port, terms, https=https)

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._client.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.__aexit__(None, None, None))
        self._runner.close()

    def call(self, call: Call[T], **how: Any) -> T:
        return self._runner.run(self._client.call(call, **how))

    def infer_in_groups(self, worker_id: str, request: wire.InferenceRequest) -> Iterator[list[wire.StreamEvent]]:
        return self._each(self._client.infer_in_groups(worker_id, request))

    def follow(self, download_id: str) -> Iterator[wire.DownloadProgress]:
        return self._each(self._client.follow(download_id))

    def events(self) -> Iterator[wire.PoolSnapshot | wire.WorkerChanged]:
        return self._each(self._client.events())

    def _each(self, stream: AsyncGenerator[T]) -> Iterator[T]:
        async def step() -> T | None:
            return await anext(stream, None)

        try:
            while (item := self._runner.run(step())) is not None:
                yield item
        finally:
            self._runner.run(stream.aclose())


Client = HiveClient | Blocking
TRANSPORTS: dict[str, type[Client]] = {"sync": HiveClient, "aio": Blocking}
