"""docs/reference/hooks.md shows every hook, method and type that a plugin meets, exactly as the source has it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from rbee_core import backend
from rbee_core.domain import sampling

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/hooks.md"
BACKEND = ROOT / "rbee_core/backend"
SHARED = re.compile(r"sampling\.(\w+)")


def shown() -> dict[str, list[str]]:
    """Return the lines of the code below each heading; a heading without code shows nothing."""
    sections = re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = {name: re.findall(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for name, text in sections}
    return {name: "".join(blocks).splitlines() for name, blocks in found.items() if blocks}


def programmed() -> dict[str, list[str]]:
    """Return the same from the source."""
    hooks = {name: [line] for name, line in functions(parsed("hookspecs.py").body)}
    bodies = [
        *parsed("base.py").body,
        *parsed("generation.py").body,
        *parsed("talk.py").body,
        *parsed("vectors.py").body,
    ]
    types = {node.name: members(node) for node in bodies if isinstance(node, ast.ClassDef)}
    return hooks | {name: lines for name, lines in types.items() if name in backend.__all__}


def parsed(name: str) -> ast.Module:
    return ast.parse((BACKEND / name).read_text(encoding="utf-8"))


def functions(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            decorated = "@property " if "property" in map(ast.unparse, node.decorator_list) else ""
            line = f"{decorated}{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
            yield node.name, re.sub(r"'([\w.]+)'", r"\1", line)


def members(node: ast.ClassDef) -> list[str]:
    """Return the fields of a class and its methods, in order."""
    fields = [SHARED.sub(value_of, ast.unparse(item)) for item in node.body if isinstance(item, ast.AnnAssign)]
    return fields + [line for name, line in functions(node.body) if name != "__repr__"]


def value_of(shared: re.Match[str]) -> str:
    """Return the number behind a name: whoever reads the page wants that."""
    return repr(getattr(sampling, shared[1]))


def test_every_signature_is_shown_and_no_other() -> None:
    assert shown() == programmed()


def test_every_name_that_a_plugin_may_import_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in backend.__all__ if f"`{name}`" not in text] == []


def test_every_capability_is_explained() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8").split("### Capabilities")[1], re.MULTILINE)
    assert set(rows) == backend.base.CAPABILITIES
