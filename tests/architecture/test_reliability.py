"""Every promise of docs/reliability.md is shown by tests that are there, and every fault found once has its promise."""

import ast
import re
from pathlib import Path

from scripts.reliability import PAGE, read, split, written

ROOT = Path(__file__).parents[2]
NAMED = [split(test) for group in read()["group"] for promise in group["promise"] for test in promise["tests"]]
FOUND_ONCE = re.compile(r"test_[abcmn]\d+_")
"""A test for a fault that somebody met bears the fault's number."""


def names_in(path: Path) -> set[str]:
    """Return what pytest runs of a file: its functions, or its scenarios."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".feature":
        return {title.strip() for title in re.findall(r"^\s*Scenario(?: Outline)?:(.*)$", text, re.MULTILINE)}
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    return {function.name for function in functions if function.name.startswith("test_")}


def test_the_page_says_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == written(read()), "run `python scripts/reliability.py`"


def test_every_test_that_is_named_is_there() -> None:
    there = {file: names_in(ROOT / file) if (ROOT / file).exists() else set() for file, _ in NAMED}
    assert [f"{file}: {name}" for file, name in NAMED if name not in there[file]] == []


def test_every_fault_that_was_found_once_has_its_promise() -> None:
    modules = sorted((ROOT / "tests").rglob("test_*.py"))
    found = [(str(m.relative_to(ROOT)), name) for m in modules for name in names_in(m) if FOUND_ONCE.match(name)]
    missing = [f"{file}::{name}" for file, name in found if (file, name) not in NAMED]
    assert missing == [], "add them to tests/promises.toml, then run `python scripts/reliability.py`"
