"""The tutorial followed word by word, and a generated package, installed in an environment of their own."""

import json
import os
import pwd
import re
import shlex
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest

from rbee_core.keeper.commands import plugin_template
from rbee_kit import oracle

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs/tutorial/a-backend-in-thirty-minutes.md"
DEBUGGING = ROOT / "docs/how-to/debug-a-worker.md"
EXAMPLES = ROOT / "examples"
LONGEST_S = 500
KIT = "pytest --pyargs rbee_kit --backend ngram --model text:bees"


def steps(page: str) -> list[tuple[str, str]]:
    """Return what a page asks its reader to do, in order: ("type", lines) and (file name, text to save in it)."""
    found = re.findall(r"(?:Save this as `([^`]+)`:\n\n)?^```(\w+)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    return [(name or "type", text) for name, language, text in found if name or language == "sh"]


TUTORIAL_STEPS = steps(TUTORIAL.read_text(encoding="utf-8"))


def as_script(steps: list[tuple[str, str]]) -> str:
    """Return the steps as one shell session."""
    lines = ["set -e"]
    for name, text in steps:
        saved = f"mkdir -p $(dirname {name})\ncat > {name} <<'END OF FILE'\n{text}END OF FILE"
        lines.append(text if name == "type" else saved)
    return "\n".join(lines)


def build_wheel(folder: Path) -> Path:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def caches() -> str:
    """Return where pip keeps what it has downloaded, also when a test has set another HOME."""
    return str(Path(pwd.getpwuid(os.getuid()).pw_dir, ".cache"))


class Installed:
    """The folder of somebody who follows the tutorial on a new machine; `printed` is what the session showed.

    rbee and its dependencies come from where pip gets them, but rbee itself from this checkout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "rbee-backend-ngram/.venv/bin"
        self.wheel = build_wheel(folder / "dist")
        constraints = folder / "constraints.txt"
        constraints.write_text(f"rbee=={self.wheel.name.split('-')[1]}\n")
        links = f"{self.wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "VIRTUAL"))}
        self._environment |= {"RBEE_HOME": str(folder / "home"), "PATH": path}
        self._environment |= {"PIP_CONSTRAINT": str(constraints), "PIP_FIND_LINKS": links}
        self._environment |= {"HOME": str(folder), "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or caches()}
        self.printed = self._run("bash", "-c", as_script(TUTORIAL_STEPS))

    def install(self, *packages: Path | str) -> None:
        self.run("python", "-m", "pip", "install", "-q", *map(str, packages))

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment, as somebody who has activated it, and return what it printed."""
        return self._run(str(self.bin / program), *arguments)

    def _run(self, *argv: str) -> str:
        tag = str(uuid.uuid4())
        done = subprocess.run(
            argv,
            env=self._environment | {oracle.TAG_VARIABLE: tag},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert not oracle.processes(tag)
        return done.stdout

    def backend_names(self) -> set[str]:
        plugins = json.loads(self.run("rbee", "plugins", "--json"))["plugins"]
        assert [(p["name"], p["failure"]) for p in plugins if p["failure"]] == []
        return {name for plugin in plugins for name in plugin["backends"]}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = Installed(tmp_path_factory.mktemp("examples"))
    plugin_template.write("loud-shout", environment.folder / "generated")
    environment.install(environment.folder / "generated")
    return environment


def test_the_tutorial_has_every_file_of_the_example() -> None:
    example = EXAMPLES / "rbee-backend-ngram"
    source = [p for p in (example / "src").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    files = {str(p.relative_to(example)): p.read_text(encoding="utf-8") for p in [example / "pyproject.toml", *source]}
    assert {name: text for name, text in TUTORIAL_STEPS if name != "type"} == files


def test_the_tutorial_ends_with_the_kit() -> None:
    assert TUTORIAL_STEPS[-1] == ("type", f"{KIT}\n")
    assert 'kit = ["--pyargs", "rbee_kit", "--backend", "ngram", "--model", "text:bees"]' in (
        EXAMPLES / "rbee-backend-ngram/tests/test_kit.py"
    ).read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_the_tutorial_word_by_word_gives_a_backend_that_passes(installed: Installed) -> None:
    assert "✓ ngram (cpu)" in installed.printed
    assert "hive" in installed.printed
    assert "ngram with text:bees conforms" in installed.printed
    assert {"ngram", "loud-shout", "llamacpp-cpu"} <= installed.backend_names()


@pytest.mark.timeout(600)
def test_the_same_seed_writes_the_same_words(installed: Installed) -> None:
    line = "infer --backend ngram --model text:bees --prompt 'The bees' --seed 7 --max-tokens 60 --quiet"
    first, second = (installed.run("rbee", *shlex.split(line)) for _ in range(2))
    assert first == second
    assert first in installed.printed


@pytest.mark.timeout(600)
def test_a_generated_package_works(installed: Installed) -> None:
    program, *arguments = shlex.split(plugin_template.commands("loud-shout")[0])
    printed = installed.run(program, *arguments, "--max-tokens", "5", "--quiet")
    assert len(printed.split()) == 5


@pytest.mark.timeout(600)
def test_an_engine_is_called_without_a_worker(installed: Installed) -> None:
    """As the page on debugging shows it."""
    [code] = re.findall(r"^```python\n(.*?)^```", DEBUGGING.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (installed.folder / "novel.txt").write_text("The bees like the novel.", encoding="utf-8")
    assert "Token(text=' like'" in installed.run("python", "-c", code)


@pytest.mark.timeout(600)
def test_a_generated_package_passes_the_kit(installed: Installed) -> None:
    command = ["--pyargs", "rbee_kit", "--backend", "loud-shout", "--model", "loud-shout:demo"]
    installed.run("python", "-m", "pytest", *command)


@pytest.mark.timeout(600)
def test_the_kit_in_the_wheel_has_its_verdict_and_not_the_report_of_this_clone(installed: Installed) -> None:
    packages = {name.partition("/")[0] for name in zipfile.ZipFile(installed.wheel).namelist()}
    assert {name for name in packages if not name.endswith(".dist-info")} == {"rbee_core", "rbee_kit", "rbee_plugins"}
    options = installed.run("python", "-m", "pytest", "--pyargs", "rbee_kit", "--help")
    assert "--rbee-verdict" in options
    assert "--rbee-report" not in options
    assert "--rbee-check-checklist" not in options


IMPORTED = re.compile(r"^\s*(?:from|import) (rbee_\w+(?:\.\w+)?)", re.MULTILINE)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("src/**/*.py")), ids=lambda p: str(p.relative_to(EXAMPLES)))
def test_examples_see_only_what_plugins_may_see(path: Path) -> None:
    allowed = ("rbee_core.backend", "rbee_core.errors", f"{path.parent.name}")
    found = IMPORTED.findall(path.read_text(encoding="utf-8"))
    assert [name for name in found if not name.startswith(allowed)] == []
