"""`rbee --help` is answered before a person notices, because it imports next to nothing."""

import subprocess
import sys

import pytest

EXPENSIVE = frozenset(
    {
        "aiohttp",
        "asyncio",
        "httpx",
        "huggingface_hub",
        "importlib.metadata",
        "jinja2",
        "llama_cpp",
        "llama_cpp.llama_cpp",
        "mlx",
        "msgspec",
        "numpy",
        "pluggy",
        "psutil",
        "rbee_plugins",
        "rich",
        "sqlite3",
        "ssl",
    }
)


SCRIPT = """
import os, sys
leave = os._exit
os._exit = lambda code: (print(*sys.modules, sep="\\n", file=sys.stderr, flush=True), leave(code))
from rbee_core.keeper.main import main
main()
"""


def imported_by(*arguments: str) -> set[str]:
    """Run `rbee` in a new interpreter and return every module that it had imported when it ended.

    Not `-X importtime`: that does not see what `importlib.import_module` imports.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_expensive(argument: str) -> None:
    modules = imported_by(argument)

    assert "rbee_core.keeper.main" in modules
    assert modules & EXPENSIVE == set()


def test_infer_help_imports_no_engine_no_server_and_no_http_client() -> None:
    modules = imported_by("infer", "--help")

    assert "rbee_core.keeper.commands.infer" in modules
    assert modules & (EXPENSIVE - {"msgspec"}) == set()


def test_client_keeps_httpx_own_command_line_out() -> None:
    heavy = "{'rich', 'pygments', 'asyncio', 'aiohttp'}"
    code = f"import sys, rbee_core.client.sync; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"


def test_asynchronous_client_needs_no_other_transport() -> None:
    code = "import sys, rbee_core.client.aio; print(sorted({'rich', 'pygments', 'httpx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == "[]"
