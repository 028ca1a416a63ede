"""The pytest plugin: options, fixtures, feature files, and the watch over what a scenario leaves behind.

Loaded by `rbee_kit.entry` for ``pytest --pyargs rbee_kit``, and by the conftest.py of rbee's own tests.
"""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_bdd.parser import Scenario

from rbee_core.backend.base import CAPABILITIES
from rbee_kit import gherkin, oracle, ready, telling
from rbee_kit.asking import Asking
from rbee_kit.program import Home
from rbee_kit.ready import Shelf
from rbee_kit.waiting import eventually

pytest_plugins = [
    "rbee_kit.judge",
    "rbee_kit.telling",
    "rbee_kit.ready",
    "rbee_kit.steps.plugin",
    "rbee_kit.steps.hive",
    "rbee_kit.steps.model",
    "rbee_kit.steps.text",
    "rbee_kit.steps.talk",
    "rbee_kit.steps.together",
    "rbee_kit.steps.words",
    "rbee_kit.steps.choosing",
    "rbee_kit.steps.numbers",
    "rbee_kit.steps.running",
    "rbee_kit.steps.tools",
]

ENDING_S = 2.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's options."""
    group = parser.getgroup("rbee")
    group.addoption("--backend", metavar="NAME", help="The backend that features run with.")
    group.addoption("--model", metavar="REF", help="The model that they run with: a path, or any other reference.")
    group.addoption("--bad-model", metavar="REF", help="A model that cannot be loaded, if no file can be damaged.")
    group.addoption(
        "--load-stall-s", type=float, default=60.0, metavar="SECONDS", help="How long a load may stand still."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the tags of the backend part as markers."""
    config.addinivalue_line("markers", "mandatory: what every backend must do")
    for word in sorted(CAPABILITIES):
        config.addinivalue_line("markers", f"capability.{word}: what a backend must do that declares {word}")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Make feature files collectable."""
    return gherkin.collect(file_path, parent) if file_path.suffix == ".feature" else None


def pytest_bdd_before_scenario(scenario: Scenario) -> None:
    """Fail a scenario that two step definitions fit, or none."""
    gherkin.check_unambiguous(scenario)


def pytest_report_header(config: pytest.Config) -> str:
    """Say what features run with."""
    return f"rbee: backend {config.getoption('--backend')}, model {config.getoption('--model')}"


@pytest.fixture(autouse=True)
def leftovers() -> Iterator[str]:
    """Fail a test that leaves processes or zombies behind; return the tag that all its processes carry."""
    tag = str(uuid.uuid4())
    yield tag
    try:
        eventually(lambda: not oracle.leftovers(tag), ENDING_S, what="no process is left")
    except AssertionError:
        left = oracle.leftovers(tag)
        oracle.kill(tag)
        pytest.fail(f"left running: {left}")


@pytest.fixture
def tag(leftovers: str) -> str:
    """The tag that every process of this test carries."""
    return leftovers


@pytest.fixture
def home(
    tmp_path: Path, tag: str, shelf: Shelf, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> Iterator[Home]:
    """An RBEE_HOME of this test's own, or the one that it shares with others who want the same model ready."""
    wanted = ready.wanted_by(request.node)
    home = shelf.visit(wanted) if wanted else Home(tmp_path, tag)
    request.node.stash[telling.HOME] = home
    home.environment["RBEE_LOAD_STALL_TIMEOUT_S"] = str(pytestconfig.getoption("--load-stall-s"))
    yield home
    home.close()
    if wanted and request.node.stash.get(ready.FAILED, False):
        shelf.clear()
    assert not list(home.folder.rglob("workers.db")), "a registry database was written"


@pytest.fixture
def backend(pytestconfig: pytest.Config) -> str:
    """The backend that this scenario runs with."""
    return str(pytestconfig.getoption("--backend"))


@pytest.fixture
def model(pytestconfig: pytest.Config) -> str:
    """The model that this scenario runs with; a relative path counts from where pytest was started."""
    reference = str(pytestconfig.getoption("--model"))
    path = pytestconfig.invocation_params.dir / reference
    return str(path.resolve()) if path.exists() else reference


@pytest.fixture
def asking(home: Home, model: str, backend: str) -> Asking:
    """How this scenario asks for text."""
    return Asking(home, model, backend)
