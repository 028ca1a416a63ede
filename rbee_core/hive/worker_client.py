"""The hive's HTTP to its workers: following a load, probing, asking to stop, relaying inference."""

import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
import msgspec

from rbee_core import wire
from rbee_core.descriptors import is_shortage
from rbee_core.domain.worker import Worker
from rbee_core.hive.terms import Waits

log = logging.getLogger(__name__)


class WorkerClient:
    """One client session for all workers. Use as an async context manager."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        timeout = aiohttp.ClientTimeout(total=self._waits.request_s)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open session."""
        assert self._session is not None
        return self._session

    @staticmethod
    def headers(worker: Worker) -> dict[str, str]:
        """Return what proves to `worker` that we are its hive."""
        return {"Authorization": f"Bearer {worker.secret}", "Content-Type": "application/json"}

    async def load_progress(self, worker: Worker) -> AsyncIterator[wire.LoadProgress]:
        """Yield the worker's load progress; ends silently when the worker dies, which its exit reports."""
        timeout = aiohttp.ClientTimeout(total=None, connect=self._waits.connect_s)
        url = f"{worker.url}/v1/loading/progress"
        try:
            async with self.session.get(url, headers=self.headers(worker), timeout=timeout) as response:
                async for line in response.content:
                    data = line.removeprefix(b"data: ").strip()
                    if data and data != b"[DONE]":
                        yield msgspec.json.decode(data, type=wire.LoadProgress)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:  # no JSON of ours, or a line without an end
            log.info("%s: the load progress broke off: %s", worker.id, error)

    async def is_alive(self, worker: Worker) -> bool:
        """Return whether the worker answers its health route in time; it is believed to, if the hive cannot ask."""
        try:
            async with self.session.get(f"{worker.url}/v1/health", headers=self.headers(worker)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError) as error:
            return is_shortage(error)

    async def ask_to_stop(self, worker: Worker, within_s: float) -> None:
        """Ask the worker to stop; whether it does is seen by its exit."""
        timeout = aiohttp.ClientTimeout(total=max(within_s, 0.001))  # aiohttp takes 0 for no limit
        try:
            url = f"{worker.url}/v1/shutdown"
            async with self.session.post(url, headers=self.headers(worker), timeout=timeout) as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            log.info("%s did not take the request to stop: %s", worker.id, error or type(error).__name__)

    async def cancel(self, worker: Worker, request_id: str, within_s: float | None = None) -> bool:
        """Tell the worker that nobody wants this request any more; return False if its slot is not free in time."""
        timeout = aiohttp.ClientTimeout(total=self._waits.request_s if within_s is None else within_s)
        try:
            url = f"{worker.url}/v1/inference/{quote(request_id, safe='')}"
            async with self.session.delete(url, headers=self.headers(worker), timeout=timeout) as response:
                await response.read()
        except TimeoutError:
            log.info("%s has not ended request %s yet", worker.id, request_id)
            return False
        except aiohttp.ClientError as error:  # its exit will tell
            log.info("%s did not take the cancellation: %s", worker.id, error)
        return True
