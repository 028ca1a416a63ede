"""What holds for every test: nothing may be left over, nothing may be written outside the temporary folders.

Also makes feature files collectable (`pytest features/x.feature`, `pytest -m B5.2`) and says which backend and model
they run with.
"""

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rbee_kit import gherkin, oracle
from rbee_kit.behaviours import BEHAVIOURS, GROUPS
from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytest_plugins = [f"step_defs.{noun}" for noun in ("model", "hive", "worker", "inference", "plugin", "cli")]

SCRIPTED_PLUGINS = Path(__file__).parent / "tests" / "support" / "plugins"
REAL_HOME = Path.home() / ".rbee"
SPARE_FDS = 2
ENDING_S = 2.0


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rbee")
    group.addoption("--backend", default="llamacpp-cpu", metavar="NAME", help="The backend that features run with.")
    group.addoption("--model", default="smollm2", metavar="REF", help="The model that features run with.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "scripted: runs with the scripted backend of tests/support")
    for name, title in {**GROUPS, **BEHAVIOURS}.items():
        config.addinivalue_line("markers", f"{name}: {title}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    return gherkin.FeatureFile.from_parent(parent, path=file_path) if file_path.suffix == ".feature" else None


def pytest_bdd_before_scenario(scenario: gherkin.Scenario) -> None:
    gherkin.check_unambiguous(scenario)


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for whatever a test writes into its home folder."""
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(autouse=True)
def nothing_left(outside: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Fail a test that leaves processes, zombies, open files or files behind; return its tag."""
    tag = str(uuid.uuid4())
    monkeypatch.setenv(oracle.TAG_VARIABLE, tag)
    monkeypatch.setenv("HOME", str(outside))
    monkeypatch.setenv("RBEE_HOME", str(outside / "rbee-home"))
    written, open_fds = changed_at(REAL_HOME), psutil.Process().num_fds()
    yield tag
    try:
        eventually(lambda: not oracle.leftovers(tag), ENDING_S, what="no process is left")
    except AssertionError:
        left = oracle.leftovers(tag)
        oracle.kill(tag)
        pytest.fail(f"left running: {left}")
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
def tag(nothing_left: str) -> str:
    """The tag that every process of this test carries."""
    return nothing_left


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, tag: str) -> Iterator[Home]:
    """An RBEE_HOME of this test's own."""
    home = Home(tmp_path, tag)
    if request.node.get_closest_marker("scripted") is not None:
        home.use_plugins_in(SCRIPTED_PLUGINS)
    yield home
    home.close()
    assert not list(tmp_path.rglob("workers.db")), "a registry database was written"


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The backend that this scenario runs with."""
    scripted = request.node.get_closest_marker("scripted") is not None
    return "scripted" if scripted else str(request.config.getoption("--backend"))


@pytest.fixture
def model(pytestconfig: pytest.Config) -> str:
    """The model that features run with."""
    return str(pytestconfig.getoption("--model"))


def pytest_report_header(config: pytest.Config) -> str:
    return f"rbee: backend {config.getoption('--backend')}, model {config.getoption('--model')}"
