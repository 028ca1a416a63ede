"""A small Hugging Face hub of our own, on loopback, that can misbehave in every way a transfer must survive.

It speaks the part of the hub's HTTP interface that model sources and transfers use, and keeps a record of every
request. As a process: ``python -m tests.support.hub --file org/repo/name.gguf=PATH`` prints its address.
"""

import argparse
import asyncio
import contextlib
import functools
import gzip
import hashlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_CHUNK = 256 * 1024
_BOMB = gzip.compress(bytes(16 * 1024 * 1024))


@dataclass
class Knobs:
    """What goes wrong with one file. Counters count down; -1 never ends."""

    cut_at: int | None = None
    cut_times: int = 1
    stall_at: int | None = None
    stall_times: int = -1
    flap_times: int = 0
    flap_status: int = 503
    retry_after: str = ""
    wrong_bytes_times: int = 0
    etag_changes: bool = False
    ignores_if_range: bool = False
    etag: str | None = None
    ranges: bool = True
    extra_bytes: int = 0
    chunked: bool = False
    gzip_bomb: bool = False
    redirect: str = ""
    status: int = 0
    bytes_per_s: int = 0
    one_line: bool = False  # bytes_per_s are what all connections have together


@dataclass
class Metadata:
    """How the hub answers what a repository holds. `body` is in place of the true answer, and so may be anything."""

    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    drip_s: float = 0.0
    """Send headers, then a blank now and then, for ever."""
    redirect: str = ""


@dataclass
class HubFile:
    data: bytes
    lfs: bool = True
    knobs: Knobs = field(default_factory=Knobs)
    served: int = 0

    @property
    def sha256(self) -> str:
        return _sha256(self.data)

    @property
    def git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    def listed(self, name: str) -> dict[str, object]:
        entry: dict[str, object] = {"rfilename": name, "size": len(self.data), "blobId": self.git_sha1}
        if self.lfs:
            entry["lfs"] = {"sha256": self.sha256, "size": len(self.data), "pointerSize": 134}
        return entry

    def body(self) -> bytes:
        data = self.data
        if self.knobs.wrong_bytes_times:
            self.knobs.wrong_bytes_times -= 1
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]
        extra = self.knobs.extra_bytes
        return data + b"x" * extra if extra > 0 else data[: len(data) + extra]


@functools.lru_cache(maxsize=64)
def _sha256(data: bytes) -> str:
    """Hash once a file: a hub that hashes at every request would make all its clients look equally slow."""
    return hashlib.sha256(data).hexdigest()


@dataclass
class Request:
    """One request as it was received, and what it cost."""

    method: str
    path: str
    headers: dict[str, str]
    served_bytes: int = 0

    @property
    def authorized(self) -> bool:
        return "authorization" in self.headers


RECORD = web.RequestKey("record", Request)


class Hub:
    """Use as a context manager; everything may be changed while it runs."""

    def __init__(self, port: int = 0) -> None:
        self.files: dict[str, HubFile] = {}
        self.requests: list[Request] = []
        self.token = ""
        self.repo_status: dict[str, int] = {}
        self.api_flap_times = 0
        self.metadata = Metadata()
        self.gated: set[str] = set()
        self.port = port
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._line = asyncio.Lock()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hub", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def served_bytes(self) -> int:
        return sum(r.served_bytes for r in self.requests)

    def add(self, name: str, data: bytes, *, lfs: bool = True, **knobs: object) -> HubFile:
        """Publish ``org/repo/path``."""
        self.files[name] = HubFile(data, lfs, replace(Knobs(), **knobs))
        return self.files[name]

    def gets(self, name: str = "") -> list[Request]:
        """Return the downloads so far, of one file or of all."""
        return [r for r in self.requests if r.method == "GET" and "/resolve/" in r.path and r.path.endswith(name)]

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        app = web.Application(middlewares=[self._record])
        app.router.add_get("/api/models/{org}/{repo}", self._model)
        app.router.add_get("/api/models/{org}/{repo}/revision/{revision}", self._model)
        app.router.add_get("/api/models/{org}/{repo}/tree/{revision}", self._tree)
        app.router.add_get("/{org}/{repo}/resolve/{revision}/{path:.+}", self._resolve)
        runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _record(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        headers = {k.lower(): v for k, v in request.headers.items()}
        request[RECORD] = Request(request.method, request.path, headers)
        self.requests.append(request[RECORD])
        return await handler(request)

    def _refusal(self, request: web.Request, repo: str) -> web.Response | None:
        status = self.repo_status.get(repo, 0)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            status = 401
        code = {401: "GatedRepo", 403: "GatedRepo", 404: "RepoNotFound"}.get(status, "")
        return web.Response(status=status, headers={"X-Error-Code": code}) if status else None

    def _of(self, repo: str) -> dict[str, HubFile]:
        return {n.removeprefix(f"{repo}/"): f for n, f in self.files.items() if n.startswith(f"{repo}/")}

    async def _model(self, request: web.Request) -> web.StreamResponse:
        repo = f"{request.match_info['org']}/{request.match_info['repo']}"
        if odd := await self._odd(request):
            return odd
        if self.api_flap_times:
            self.api_flap_times -= 1
            return web.Response(status=503)
        if refusal := self._refusal(request, repo):
            return refusal
        files = self._of(repo)
        if not files:
            return web.json_response({"error": "not found"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        siblings = [f.listed(n) for n, f in files.items()]
        return web.json_response({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings})

    async def _odd(self, request: web.Request) -> web.StreamResponse | None:
        """Answer as `metadata` says, if it says anything."""
        knobs = self.metadata
        if knobs.silent:
            await self._stop.wait()
        if knobs.drip_s:
            return await self._drip(request, knobs.drip_s)
        if knobs.redirect:
            return web.Response(status=302, headers={"Location": knobs.redirect})
        if knobs.body is not None:
            return web.Response(body=knobs.body, headers={"Content-Type": "application/json", **knobs.headers})
        return None

    async def _drip(self, request: web.Request, every_s: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            while not self._stop.is_set():
                await response.write(b" ")
                await self._pause(every_s)
        return response

    async def _tree(self, request: web.Request) -> web.Response:
        files = self._of(f"{request.match_info['org']}/{request.match_info['repo']}")
        return web.json_response(
            [{"type": "file", "path": n, "size": len(f.data), "oid": f.git_sha1} for n, f in files.items()]
        )

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        info = request.match_info
        repo = f"{info['org']}/{info['repo']}"
        file = self.files.get(f"{repo}/{info['path']}")
        if refusal := self._refusal(request, repo) or (None if repo not in self.gated else web.Response(status=403)):
            return refusal
        if file is None:
            return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        if answer := _canned(file):
            return answer
        return await self._send(request, file)

    async def _send(self, request: web.Request, file: HubFile) -> web.StreamResponse:
        knobs, body = file.knobs, file.body()
        file.served += 1
        etag = knobs.etag if knobs.etag is not None else f'"{file.sha256}"'
        etag = f'"v{file.served}"' if knobs.etag_changes else etag
        start, end = _wanted_range(request, knobs, etag, len(body))
        headers = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(file.data)), "X-Linked-Etag": f'"{file.sha256}"'}
        headers |= {"ETag": etag} if etag else {}
        if start >= len(body) and body:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
        partial = end - start < len(body)
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        if partial:
            response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
        if knobs.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = end - start
        with contextlib.suppress(ConnectionResetError):  # clients may leave
            await response.prepare(request)
            if request.method == "GET":
                await self._write(request, response, memoryview(body), start, end, knobs)
        return response

    async def _write(
        self,
        request: web.Request,
        response: web.StreamResponse,
        body: memoryview,
        start: int,
        end: int,
        knobs: Knobs,
    ) -> None:
        cut = knobs.cut_at if knobs.cut_at is not None and knobs.cut_times and knobs.cut_at >= start else None
        stall = knobs.stall_at if knobs.stall_at is not None and knobs.stall_times and knobs.stall_at >= start else None
        limit = min(x for x in (end, cut, stall) if x is not None)
        step = min(_CHUNK, max(1024, knobs.bytes_per_s // 50)) if knobs.bytes_per_s else _CHUNK
        for at in range(start, limit, step):
            piece = body[at : min(at + step, limit)]
            await response.write(piece)
            request[RECORD].served_bytes += len(piece)
            if knobs.bytes_per_s:
                async with self._line if knobs.one_line else contextlib.nullcontext():
                    await self._pause(len(piece) / knobs.bytes_per_s)
        if cut == limit:
            knobs.cut_times -= 1
            assert request.transport is not None
            request.transport.close()
        elif stall == limit:
            knobs.stall_times -= 1
            await self._stop.wait()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


def _canned(file: HubFile) -> web.Response | None:
    """Return an answer that does not depend on the request, if the file is set to give one."""
    knobs = file.knobs
    if knobs.flap_times:
        knobs.flap_times -= 1
        return web.Response(
            status=knobs.flap_status, headers={"Retry-After": knobs.retry_after} if knobs.retry_after else {}
        )
    if knobs.status:
        return web.Response(status=knobs.status)
    if knobs.redirect:
        return web.Response(status=302, headers={"Location": knobs.redirect})
    if knobs.gzip_bomb:
        return web.Response(body=_BOMB, headers={"Content-Encoding": "gzip", "ETag": '"bomb"'})
    return None


def _wanted_range(request: web.Request, knobs: Knobs, etag: str, size: int) -> tuple[int, int]:
    wanted = request.headers.get("Range", "")
    condition = request.headers.get("If-Range", etag)
    if not wanted or not knobs.ranges or (condition != etag and not knobs.ignores_if_range):
        return 0, size
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    return int(first), min(int(last) + 1, size) if last else size


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", action="append", default=[], metavar="ORG/REPO/NAME=PATH")
    parser.add_argument("--bytes-per-s", type=int, default=0)
    options = parser.parse_args()
    with Hub(options.port) as hub:
        for item in options.file:
            name, _, path = item.partition("=")
            hub.add(name, Path(path).read_bytes(), bytes_per_s=options.bytes_per_s)
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
