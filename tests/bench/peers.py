"""The sides of a comparison: rbee's hive, the bare loop, llama-server and llama-cpp-python's example server."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.decode import model_path
from tests.bench.measure import ROOT, hive, home
from tests.bench.streams import Stream, ask_all

START_S = 120

LLAMA_SERVER = """
import sys, time, xllamacpp
path, threads, slots, context, port = sys.argv[1], *map(int, sys.argv[2:])
settings = xllamacpp.CommonParams()
settings.model.path = path
settings.n_ctx, settings.n_parallel, settings.n_gpu_layers = context * slots, slots, 0
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
settings.port, settings.verbosity = port, 1
server = xllamacpp.Server(settings)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Terms:
    """What all sides are given. `context_tokens` is for each of `slots`."""

    threads: int
    slots: int = 8
    context_tokens: int = 1024


@dataclass(frozen=True)
class Server:
    """A side that is asked over HTTP. `body` makes its request from prompt, tokens and chain."""

    url: str
    body: Callable[[str, int, str], dict[str, object]]

    def ask(self, prompts: Sequence[str], tokens: int, chain: str = "greedy") -> list[Stream]:
        return ask_all(self.url, [self.body(prompt, tokens, chain) for prompt in prompts])


class BareLoop:
    """The bare loop's process, which keeps the model between rounds."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, prompts: Sequence[str], tokens: int, chain: str = "greedy") -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"prompts": prompts, "tokens": tokens, "chain": chain}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def started(argv: Sequence[object], environment: Mapping[str, str] | None = None) -> Iterator["subprocess.Popen[str]"]:
    """Run a process as long as the block."""
    command = [str(word) for word in argv]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=errors, text=True, cwd=ROOT) as one,
    ):
        try:
            yield one
        finally:
            one.terminate()


def environment(packages: Path | None = None) -> dict[str, str]:
    """Let waiting threads sleep as soon as those of rbee's workers do; `packages` is a folder to import from."""
    own = {**os.environ, "GOMP_SPINCOUNT": "1000"}
    return own if packages is None else own | {"PYTHONPATH": str(packages.absolute())}


@contextmanager
def bare_loop(terms: Terms) -> Iterator[BareLoop]:
    """Give the loop over llama.cpp's low-level API."""
    numbers = (terms.threads, terms.slots, terms.context_tokens)
    with started([sys.executable, "-m", "tests.bench.bare", model_path(), *numbers], environment()) as process:
        yield BareLoop(process)


@contextmanager
def through_hive(terms: Terms, **settings: object) -> Iterator[Server]:
    """Give a hive's own route, with a worker that is loaded."""
    numbers = {
        "RBEE_THREADS": terms.threads,
        "RBEE_SLOTS_PER_WORKER": terms.slots,
        "RBEE_CONTEXT_TOKENS": terms.context_tokens,
    } | {f"RBEE_{name.upper()}": value for name, value in settings.items()}
    with home() as there:
        own = there | {name: str(value) for name, value in numbers.items()}
        with hive(own):
            note = json.loads((Path(own["RBEE_HOME"]) / "run" / "hive.json").read_text())
            server = Server(f"http://127.0.0.1:{note['port']}/v1/inference", _native)
            server.ask(["Hello"], 2)
            yield server


def _native(prompt: str, tokens: int, chain: str) -> dict[str, object]:
    body: dict[str, object] = {"model_ref": "smollm2", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    return body | ({"temperature": 0} if chain == "greedy" else {})


@contextmanager
def llama_server(folder: Path, terms: Terms) -> Iterator[Server]:
    """Give llama.cpp's own server, through xllamacpp, which `folder` holds."""
    port = free_port()
    numbers = (terms.threads, terms.slots, terms.context_tokens, port)
    with started([sys.executable, "-P", "-c", LLAMA_SERVER, model_path(), *numbers], environment(folder)):
        url = f"http://127.0.0.1:{port}"
        until_up(f"{url}/health")
        yield Server(f"{url}/v1/completions", _llama)


def _llama(prompt: str, tokens: int, chain: str) -> dict[str, object]:
    body: dict[str, object] = {"prompt": prompt, "max_tokens": tokens, "stream": True, "ignore_eos": True}
    return {**body, "cache_prompt": False, "stream_options": {"include_usage": True}, **_sampling(chain)}


@contextmanager
def python_server(folder: Path, program: Path, terms: Terms) -> Iterator[Server]:
    """Give llama-cpp-python's examples/server/server.py; `folder` holds what it needs beside llama-cpp-python."""
    port = free_port()
    model: dict[str, Any] = {
        "path": model_path(),
        "alias": "smollm2",
        "n_ctx": terms.context_tokens * terms.slots,
        "n_seq_max": terms.slots,
        "n_batch": 512,
        "n_ubatch": 512,
        "threads": terms.threads,
        "threads_batch": terms.threads,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        json.dump({"server": {"host": "127.0.0.1", "port": port}, "model": model}, config)
        config.flush()
        with started([sys.executable, "-P", program, "-C", config.name], environment(folder)):
            url = f"http://127.0.0.1:{port}"
            until_up(f"{url}/v1/models")
            yield Server(f"{url}/v1/completions", _openai)


def _openai(prompt: str, tokens: int, chain: str) -> dict[str, object]:
    return {"model": "smollm2", "prompt": prompt, "max_tokens": tokens, "stream": True, **_sampling(chain)}


def _sampling(chain: str) -> dict[str, object]:
    return {"temperature": 0} if chain == "greedy" else {}


def free_port() -> int:
    """Return a port that nobody listens on; for programs that cannot choose one and tell."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until_up(url: str) -> None:
    """Wait until something answers there."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
