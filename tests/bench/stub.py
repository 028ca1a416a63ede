"""Engines that only wait, in real workers: what else an answer costs is the hive's share of it."""

import http.server
import json
import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from rbee_core import wire
from rbee_kit import oracle
from rbee_kit.program import Hive, Home
from tests.bench.measure import ROOT

PLUGINS = ROOT / "tests/support/plugins"
SECRET = "x"  # what `streams.ask` shows
WORKERS = 4
START_S = 60


def model(number: int, tokens: int, token_ms: float, slots: int) -> str:
    """Return the reference of one of several stub models; what `number` makes different means nothing."""
    return f"scripted:tokens={tokens};token_ms={token_ms:g};slots={slots};need_mb={number + 1}"


@contextmanager
def hive(**settings: object) -> Iterator[Hive]:
    """Run a hive on a home of its own, with the scripted backend."""
    tag = str(uuid.uuid4())
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), tag)
        home.use_plugins_in(PLUGINS)
        home.environment |= {f"RBEE_{name.upper()}": str(value) for name, value in settings.items()}
        try:
            yield home.start_hive()
        finally:
            home.close()
            oracle.kill(tag)


def url_of(hive: Hive, path: str) -> str:
    return f"http://127.0.0.1:{hive.port}{path}"


def processes(hive: Hive) -> tuple[psutil.Process, list[psutil.Process]]:
    """Return the hive's process and its workers'."""
    pids = [worker.pid for worker in hive.client.list_workers()]
    return psutil.Process(hive.pid), [psutil.Process(pid) for pid in pids]


def cpu_s(process: psutil.Process) -> float:
    """Return the seconds that a process has computed."""
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def workers(references: list[str], slots: int) -> Iterator[list[str]]:
    """Run workers without a hive, and give the address of the inference route of each."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        yield [stack.enter_context(_worker(reference, slots, Path(folder))) for reference in references]


@contextmanager
def _worker(reference: str, slots: int, folder: Path) -> Iterator[str]:
    """Run one worker; its hive is a route that takes the callback."""
    told: list[dict[str, str]] = []
    came = threading.Event()

    class Callback(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name it has in the base class
            """Say nothing."""

    tag = str(uuid.uuid4())
    home = Home(folder / tag, tag)
    home.use_plugins_in(PLUGINS)
    with http.server.HTTPServer(("127.0.0.1", 0), Callback) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        spec = wire.WorkerSpec(
            worker_id="worker-1", secret=SECRET, hive_pid=os.getpid(),
            hive_url=f"http://127.0.0.1:{server.server_port}", reference=reference,
            path=__file__, format="scripted", size_bytes=1, backend="scripted", device="cpu",
            slots=slots,
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rbee_core.worker"],
            env=home.environment | {"PYTHONPATH": os.pathsep.join([str(ROOT), home.environment["PYTHONPATH"]])},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            process.stdin.write(wire.encode(spec) + b"\n")
            process.stdin.flush()
            if not came.wait(START_S):
                raise RuntimeError("a worker did not start")
            yield f"{told[0]['url']}/v1/inference"
        finally:
            process.kill()
            process.communicate()
            server.shutdown()
            thread.join()
