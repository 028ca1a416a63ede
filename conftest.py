"""What holds for every test here: nothing may be written outside the temporary folders, nothing may stay open.

Everything else comes from the kit, which others run without this clone. Features run with llama.cpp on the CPU unless
told otherwise; with another backend, only the part of the specification that every backend keeps makes sense.
"""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rbee_kit import oracle, program
from rbee_kit.gherkin import FeatureFile, part_of
from rbee_kit.program import Home
from rbee_report.behaviours import BEHAVIOURS, GROUPS

NOUNS = ("model", "hive", "worker", "inference", "plugin", "cli", "build", "document", "machine")
DIALECTS = ("anthropic", "ollama", "openai", "responses")
pytest_plugins = ["rbee_kit.plugin", "rbee_report.plugin", *(f"step_defs.{name}" for name in (*NOUNS, *DIALECTS))]

BACKEND, MODEL = "llamacpp-cpu", "smollm2"
SCRIPTED_PLUGINS = Path(__file__).parent / "tests" / "support" / "plugins"
WATCHED = Path(__file__).parent / "tests" / "support" / "watched"
REAL_HOME = Path.home() / ".rbee"
SPARE_FDS = 2


def pytest_configure(config: pytest.Config) -> None:
    config.option.backend = config.option.backend or BACKEND
    config.option.model = config.option.model or MODEL
    config.addinivalue_line("markers", "scripted: runs with the scripted backend of tests/support")
    for name, title in {**GROUPS, **BEHAVIOURS}.items():
        config.addinivalue_line("markers", f"{name}: {title}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.backend != BACKEND:
        senseless = [item for item in items if isinstance(item.parent, FeatureFile) and not part_of(item)]
        items[:] = [item for item in items if item not in senseless]
        config.hook.pytest_deselected(items=senseless)


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for whatever a test writes into its home folder."""
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(autouse=True)
def nothing_left(leftovers: str, outside: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves open files or files behind, as the kit fails one that leaves processes."""
    monkeypatch.setenv(oracle.TAG_VARIABLE, leftovers)
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.setenv("RBEE_HOME", str(outside / "rbee-home"))
    written, open_fds = changed_at(REAL_HOME), psutil.Process().num_fds()
    yield
    assert not list(outside.rglob("workers.db")), "a registry database was written"
    assert changed_at(REAL_HOME) == written, f"{REAL_HOME} was written to"
    assert not leaked_fds(open_fds), "files were left open"


def changed_at(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def leaked_fds(before: int) -> list[str]:
    """Return what is open, if there is more than there was; garbage may still hold some."""
    if psutil.Process().num_fds() > before + SPARE_FDS:
        gc.collect()
    if psutil.Process().num_fds() <= before + SPARE_FDS:
        return []
    return [str(f.path) for f in psutil.Process().open_files()] or ["sockets or pipes"]


@pytest.fixture
def home(request: pytest.FixtureRequest, home: Home) -> Iterator[Home]:
    """An RBEE_HOME of this test's own, with the scripted backend if it needs that.

    Every hive and worker in it fails on a blocking call on its event loop; the test then fails too.
    """
    if request.node.get_closest_marker("scripted") is not None:
        home.use_plugins_in(SCRIPTED_PLUGINS)
    home.use_plugins_in(WATCHED)
    blocked = home.folder / "blocked"
    home.environment["RBEE_TEST_BLOCKED"] = str(blocked)
    yield home
    assert not blocked.exists(), f"on an event loop:\n{blocked.read_text()}"


@pytest.fixture
def low_fds(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the programs that are started from now on open so many files at most, and never more."""
    scripts, real = tmp_path / "limited", program.SCRIPTS

    def limit(descriptors: int) -> None:
        scripts.mkdir()
        for name in ("rbee", "rbee-hive"):
            (scripts / name).write_text(f'#!/bin/sh\nulimit -n {descriptors}\nexec "{real / name}" "$@"\n')
            (scripts / name).chmod(0o755)
        monkeypatch.setattr(program, "SCRIPTS", scripts)

    del home
    return limit


@pytest.fixture
def backend(request: pytest.FixtureRequest, backend: str) -> str:
    """The backend that this scenario runs with."""
    return "scripted" if request.node.get_closest_marker("scripted") is not None else backend
