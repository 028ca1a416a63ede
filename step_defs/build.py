"""Steps about the distribution: building it, what an empty environment gets of it, and the tests of its parts."""

import json
import os
import shlex
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pytest_bdd import given, parsers, then, when

from rbee_core import __version__
from step_defs.support import Home, Program, Result

ROOT = Path(__file__).parents[1]
BUILD_PATIENCE_S = 300
TESTS_PATIENCE_S = 280
# Asked for now: while a test runs, HOME is elsewhere, and pip would find no cache.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("RBEE_", "PYTHON"))}
ENGINES = {"llama_cpp", "mlx", "numpy", "jinja2"}
SCRIPTS = {"rbee", "rbee-hive", "llm-worker-rbee"}
PROGRAM = {"rbee_core", "rbee_kit", "rbee_plugins"}

GROUPS = {
    "hive": (
        "unit/test_home.py", "unit/test_logs.py", "unit/test_placement.py", "integration/test_hive.py",
    ),
    "registry": ("unit/test_pool.py", "unit/test_pool_machine.py", "unit/test_queue.py", "unit/test_eviction.py"),
    "model provisioner": (
        "unit/test_sources.py", "unit/test_transfer_rules.py", "unit/test_paths.py", "integration/test_downloads.py",
        "integration/test_huggingface.py",
    ),
    "HTTP routes": (
        "unit/test_middleware.py", "unit/test_routes.py", "unit/test_wire.py", "integration/test_client.py",
        "architecture/test_docs.py",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Installed:
    """What was built, and the environment that it was installed into."""

    archives: list[Path]
    wheel: Path
    environment: Path

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The distribution, built and installed once a session: it is the same for every scenario."""
    folder = tmp_path_factory.mktemp("distribution")
    run("build", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT))
    [wheel] = (folder / "dist").glob("*.whl")
    venv.create(folder / "environment")
    done = Installed(list((folder / "dist").glob("*.tar.gz")), wheel, folder / "environment")
    run("pip", "--python", done.python, "install", "--no-input", str(wheel))
    return done


def run(module: str, *arguments: str) -> str:
    """Run a module of this interpreter and return what it printed; what it printed is the message if it fails."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, *arguments],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=BUILD_PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@when("the distribution is built and installed into an empty environment")
@given("rbee installed from its wheel")
def install(installed: Installed) -> None:
    assert installed.wheel.exists()


@when(parsers.parse('the installed "{line}" is run'), target_fixture="result")
def run_installed(home: Home, installed: Installed, line: str) -> Result:
    name, *arguments = shlex.split(line)
    home.environment["PATH"] = os.pathsep.join([str(installed.environment / "bin"), os.defpath])
    home.environment["RBEE_PORT"] = "0"
    return home.start(str(installed.environment / "bin" / name), *arguments).finish()


@then(parsers.parse('the installed "{line}" succeeds'))
def installed_succeeds(home: Home, installed: Installed, line: str) -> None:
    result = run_installed(home, installed, line)
    assert result.exit_code == 0, result.stderr


@then("there is an archive of the source and a wheel")
def archive_and_wheel(installed: Installed) -> None:
    assert [path.name for path in installed.archives] == [f"rbee-{__version__}.tar.gz"]
    assert installed.wheel.name == f"rbee-{__version__}-py3-none-any.whl"


@then("everything that rbee needs is installed with it")
def complete(installed: Installed) -> None:
    run("pip", "--python", installed.python, "check")
    scripts = {path.name for path in (installed.environment / "bin").iterdir()}
    assert scripts >= SCRIPTS


@then("no engine is installed with it")
def no_engine(installed: Installed) -> None:
    assert not ENGINES & {path.name for path in installed.environment.glob("lib/*/site-packages/*")}


@then("the wheel holds the program and no tests")
def contents(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert {name.partition("/")[0] for name in names} == PROGRAM | {f"rbee-{__version__}.dist-info"}
    assert "rbee_core/py.typed" in names


@then("it says the version of this rbee")
def says_version(result: Result) -> None:
    assert result.stdout.split()[-1] == __version__


@when(parsers.re(r"the (?P<group>.+?)'s? tests are run"), target_fixture="outcomes")
def run_tests(home: Home, tmp_path: Path, group: str) -> list[str]:
    paths = [str(ROOT / "tests" / name) for name in GROUPS[group]]
    results = tmp_path / "results.xml"
    program: Program = home.start(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}", *paths
    )
    done = program.finish(TESTS_PATIENCE_S)
    assert results.exists(), done.stdout + done.stderr
    return [outcome(case) for case in ET.parse(results).iter("testcase")]


def outcome(case: ET.Element) -> str:
    """Return a word and, if it did not pass, the name and the text."""
    bad = next(iter(case), None)
    if bad is None or bad.tag.startswith("system-"):
        return "passed"
    return json.dumps([bad.tag, case.get("name"), bad.get("message")])


@then(parsers.parse("at least {count:d} tests ran"))
def tests_ran(outcomes: list[str], count: int) -> None:
    assert len(outcomes) >= count


@then("all of them passed")
def tests_passed(outcomes: list[str]) -> None:
    assert [outcome for outcome in outcomes if outcome != "passed"] == []
