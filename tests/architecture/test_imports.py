"""Import contracts, what each program may import at its start, and calls that nobody makes."""

import ast
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rbee_core", "rbee_kit", "rbee_plugins", "rbee_report")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SOURCES = [path for path in MODULES if path.relative_to(ROOT).parts[0] in ("rbee_core", "rbee_plugins")]
SEEN_BY_PLUGINS = frozenset({"rbee_core.backend", "rbee_core.errors"})
OF_THE_HOST = frozenset({"rbee_core.backend.hookspecs", "rbee_core.backend.manager"})
ENGINES = frozenset({"llama_cpp", "llama_cpp.llama_cpp", "mlx", "mlx_lm", "numpy", "jinja2", "huggingface_hub"})

MODULES_AFTER = "import sys; sys.path[:] = [p for p in sys.path if p]; {code}; print(*sys.modules, sep='\\n')"


def imported_after(code: str) -> set[str]:
    """Return what a new interpreter has imported after it ran this code."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", MODULES_AFTER.format(code=code)],
        capture_output=True, text=True, check=True, timeout=60, cwd=ROOT.parent,
    )  # fmt: skip
    return set(done.stdout.split())


def test_import_contracts() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [script, "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def contract(name: str) -> dict[str, Any]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return next(c for c in configuration["tool"]["importlinter"]["contracts"] if c["id"] == name)


def test_the_code_map_shows_the_layers() -> None:
    """That every module of rbee_core is in exactly one of them, the contract itself demands: it is exhaustive."""
    layers = contract("layers")
    assert layers["exhaustive"]
    held = {(str(n), part) for n, layer in enumerate(layers["layers"], 1) for part in layer.split(" | ")}
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {(number, part) for number, parts in rows for part in re.findall(r"`(\w+)`", parts)} == held


def test_plugins_are_forbidden_every_module_but_the_contract_and_the_errors() -> None:
    """The layers are exhaustive by their own contract; this list cannot be."""
    forbidden = set(contract("plugins")["forbidden_modules"])
    modules = {f"rbee_core.{module.name}" for module in pkgutil.iter_modules([ROOT / "rbee_core"])}
    assert modules - forbidden == SEEN_BY_PLUGINS
    assert forbidden - modules == OF_THE_HOST


@pytest.mark.parametrize(
    ("program", "forbidden"),
    [
        ("rbee_core.start", ENGINES | {"click", "asyncio", "typing", "pathlib"}),
        ("rbee_core.keeper.main", ENGINES | {"aiohttp", "sqlite3", "psutil", "rbee_plugins"}),
        ("rbee_core.hive.main", ENGINES | {"httpx", "rich", "rbee_core.keeper", "rbee_core.worker"}),
        ("rbee_core.hive.daemon", ENGINES | {"rich", "httpx", "rbee_core.keeper", "rbee_core.worker"}),
        ("rbee_core.worker.main", ENGINES | {"sqlite3", "httpx", "rich", "rbee_core.keeper", "rbee_core.hive"}),
        ("rbee_core.worker.program", ENGINES | {"sqlite3", "httpx", "rich", "rbee_core.keeper", "rbee_core.hive"}),
        ("rbee_core.backend", ENGINES | {"asyncio", "aiohttp", "httpx", "sqlite3", "psutil"}),
        ("rbee_core.domain.pool", ENGINES | {"asyncio", "aiohttp", "httpx", "sqlite3", "psutil"}),
    ],
)
def test_what_a_program_does_not_import_at_its_start(program: str, forbidden: frozenset[str]) -> None:
    imported = imported_after(f"import {program}")
    assert program in imported
    assert imported & forbidden == set()


def test_finding_all_plugins_imports_no_engine() -> None:
    code = "from rbee_core.backend.manager import PluginHost; host = PluginHost({}); host.backends(); host.sources()"
    assert imported_after(code) & ENGINES == set()


def test_the_guardian_is_only_the_standard_library() -> None:
    tree = ast.parse((ROOT / "rbee_core/hive/processes/guardian.py").read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= sys.stdlib_module_names
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]


# Calls that nobody makes. Names as they are written in the source.
BANNED_CALLS = frozenset(
    {
        "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.fork", "os.spawnv",
        "pickle.load", "pickle.loads", "marshal.loads", "torch.load", "yaml.load", "tempfile.mktemp",
        "request.json", "request.post", "app.router.add_static",
    }
)  # fmt: skip
BANNED_MODULES = frozenset({"pickle", "marshal", "shelve", "diskcache", "dbm"})
# The wall clock jumps; decisions hang on the monotonic one. Here it is only written down, or names a file.
WALL_CLOCK = frozenset({"time.time", "datetime.now", "datetime.datetime.now", "datetime.utcnow"})
MAY_READ_THE_WALL_CLOCK = frozenset(
    {
        "rbee_core/models", "rbee_core/keeper/screen", "rbee_core/keeper/commands", "rbee_core/keeper",
        "rbee_core/hive/journal.py", "rbee_core/hive/dialects",
    }
)  # fmt: skip


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def may_read_the_wall_clock(path: Path) -> bool:
    return bool({str(place.relative_to(ROOT)) for place in (path, path.parent)} & MAY_READ_THE_WALL_CLOCK)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_dangerous_call(path: Path) -> None:
    found: list[str] = []
    for name, call in calls(path):
        shell = any(k.arg == "shell" for k in call.keywords)
        wall_clock = name in WALL_CLOCK and not may_read_the_wall_clock(path)
        if name in BANNED_CALLS or shell or wall_clock:
            found.append(f"line {call.lineno}: {name}")
    assert found == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_dangerous_module(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {a.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported & BANNED_MODULES == set()


def test_secrets_are_compared_in_constant_time() -> None:
    words = ("token", "secret", "api_key", "digest")
    found: list[str] = []
    for path in (path for path in SOURCES if "rbee_plugins" not in path.parts):  # their tokens are pieces of text
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
                names = [n for n in (node.left, *node.comparators) if isinstance(n, (ast.Name, ast.Attribute))]
                last = [ast.unparse(n).rsplit(".", 1)[-1] for n in names]
                if any(name in words for name in last):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert found == []


MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_FILES = 400, 60, 12


SEES_ALL_SETTINGS = (
    "settings", "keeper", "client/terms.py", "hive/main.py", "hive/daemon.py", "hive/terms.py",
    "hive/config/sections.py", "hive/config/reload.py",
)  # fmt: skip


def imports_settings(path: Path) -> bool:
    nodes = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
    named = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return "rbee_core.settings" in named or any(node.module == "rbee_core.settings" for node in nodes)


def test_only_who_composes_a_program_sees_its_settings() -> None:
    """Every other part gets what it needs and no more: a slice, or single numbers."""
    core = ROOT / "rbee_core"
    seers = {str(path.relative_to(core)) for path in core.rglob("*.py") if imports_settings(path)}
    assert {name for name in seers if not name.startswith(SEES_ALL_SETTINGS)} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


@pytest.mark.parametrize("program", ["hive", "keeper"])
def test_a_folder_of_a_program_is_seen_at_a_glance(program: str) -> None:
    modules = Counter(path.parent for path in (ROOT / "rbee_core" / program).rglob("*.py"))
    assert {str(folder): count for folder, count in modules.items() if count > MOST_FILES} == {}
