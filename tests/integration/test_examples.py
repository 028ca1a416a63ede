"""The tutorial followed word by word, and a generated package, installed in an environment of their own."""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from rbee_core.keeper import plugin_template

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs/tutorial/a-backend-in-thirty-minutes.md"
DEBUGGING = ROOT / "docs/how-to/debug-a-worker.md"
EXAMPLES = ROOT / "examples"
LONGEST_S = 500
KIT = "pytest --pyargs rbee_kit --backend ngram --model text:bees"


def saved_files() -> dict[str, str]:
    """Return what the tutorial asks its reader to save."""
    text = TUTORIAL.read_text(encoding="utf-8")
    return dict(re.findall(r"Save this as `([^`]+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def typed_commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Installed:
    """A fresh virtual environment with rbee from this checkout, the tutorial's plugin and a generated one.

    The dependencies of rbee are borrowed from the environment that runs the tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv/bin"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        site = self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        Path(site, "borrowed.pth").write_text(sysconfig.get_path("purelib"))
        self.install("-e", ROOT)

    def install(self, *packages: Path | str) -> None:
        self.run("python", "-m", "pip", "install", "-q", "--no-deps", "--ignore-installed", *map(str, packages))

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment, as somebody who has activated it, and return what it printed."""
        home = {"RBEE_HOME": str(self.folder / "home"), "PATH": f"{self.bin}:{os.environ['PATH']}"}
        done = subprocess.run(
            [self.bin / program, *arguments],
            env=os.environ | home,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def backend_names(self) -> set[str]:
        plugins = json.loads(self.run("rbee", "plugins", "--json"))["plugins"]
        assert [(p["name"], p["failure"]) for p in plugins if p["failure"]] == []
        return {name for plugin in plugins for name in plugin["backends"]}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("examples")
    written = folder / "rbee-backend-ngram"
    for name, text in saved_files().items():
        (written / name).parent.mkdir(parents=True, exist_ok=True)
        (written / name).write_text(text, encoding="utf-8")
    plugin_template.write("loud-shout", folder / "generated")
    environment = Installed(folder)
    environment.install(written, folder / "generated")
    return environment


def test_the_tutorial_has_every_file_of_the_example() -> None:
    example = EXAMPLES / "rbee-backend-ngram"
    source = [p for p in (example / "src").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    files = {str(p.relative_to(example)): p.read_text(encoding="utf-8") for p in [example / "pyproject.toml", *source]}
    assert saved_files() == files


def test_the_tutorial_ends_with_the_kit() -> None:
    assert KIT in typed_commands(TUTORIAL)
    assert 'kit = ["--pyargs", "rbee_kit", "--backend", "ngram", "--model", "text:bees"]' in (
        EXAMPLES / "rbee-backend-ngram/tests/test_kit.py"
    ).read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_what_the_tutorial_types_works(installed: Installed) -> None:
    assert {"ngram", "loud-shout", "llamacpp-cpu"} <= installed.backend_names()
    commands = [line for line in typed_commands(TUTORIAL) if line.startswith("rbee ")]
    assert len(commands) == 3
    printed = [_typed(installed, line) for line in commands]
    assert "ngram" in printed[0]
    assert "✓ ngram (cpu)" in printed[1]
    assert "hive" in printed[2]
    assert printed[2] == _typed(installed, commands[2]), "the same seed gives the same text"


def _typed(installed: Installed, line: str) -> str:
    return installed.run(*shlex.split(line))


@pytest.mark.timeout(600)
def test_a_generated_package_works(installed: Installed) -> None:
    printed = _typed(installed, plugin_template.commands("loud-shout")[0] + " --max-tokens 5 --quiet")
    assert len(printed.split()) == 5


@pytest.mark.timeout(600)
def test_an_engine_is_called_without_a_worker(installed: Installed) -> None:
    """As the page on debugging shows it."""
    [code] = re.findall(r"^```python\n(.*?)^```", DEBUGGING.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (installed.folder / "novel.txt").write_text("The bees like the novel.", encoding="utf-8")
    assert "Token(text=' like')" in installed.run("python", "-c", code)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("plugin", [("ngram", "text:bees"), ("loud-shout", "loud-shout:demo")], ids=lambda p: p[0])
def test_the_kit_passes(plugin: tuple[str, str], installed: Installed) -> None:
    backend, model = plugin
    installed.run("python", "-m", "pytest", "--pyargs", "rbee_kit", "--backend", backend, "--model", model)


IMPORTED = re.compile(r"^\s*(?:from|import) (rbee_\w+(?:\.\w+)?)", re.MULTILINE)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("src/**/*.py")), ids=lambda p: str(p.relative_to(EXAMPLES)))
def test_examples_see_only_what_plugins_may_see(path: Path) -> None:
    allowed = ("rbee_core.backend", "rbee_core.errors", "rbee_core.domain", f"{path.parent.name}")
    found = IMPORTED.findall(path.read_text(encoding="utf-8"))
    assert [name for name in found if not name.startswith(allowed)] == []
