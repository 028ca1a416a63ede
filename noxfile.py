"""The checks. `check` is all that CI runs; `fast` is for daily use. Both use the environment they are started from."""

import hashlib
import os
import sys
from pathlib import Path

import nox

nox.options.sessions = ["check"]
nox.options.error_on_missing_interpreters = True


def python(session: nox.Session, *arguments: str) -> None:
    """Run a module with the interpreter that runs nox: `make` has installed everything beside it."""
    session.run(sys.executable, "-m", *arguments, external=True)


def static(session: nox.Session) -> None:
    """Run what needs no process of ours."""
    python(session, "ruff", "format", "--check", ".")
    python(session, "ruff", "check", ".")
    python(session, "pyright", "--pythonpath", sys.executable)


@nox.session(venv_backend="none")
def fast(session: nox.Session) -> None:
    """Formatting, lint, types, unit and architecture tests: seconds."""
    static(session)
    python(session, "pytest", "tests/unit", "tests/architecture", "-q")


@nox.session(venv_backend="none")
def check(session: nox.Session) -> None:
    """Everything: static checks, all tests, the executable specification, which CHECKLIST.md is held to, and the kit.

    The backend part of the specification runs three times: among the features with llama.cpp, then with the others.
    """
    static(session)
    python(session, "pytest", "tests", "features", "-q", "--rbee-check-checklist", "CHECKLIST.md", *session.posargs)
    for run in KITS.values():
        run(session)


@nox.session(venv_backend="none")
@nox.parametrize("backend", ["mlx", "xllamacpp"])
def kit(session: nox.Session, backend: str) -> None:
    """Run the backend part of the specification with one of the other backends."""
    KITS[backend](session)


def kit_mlx(session: nox.Session) -> None:
    """Run the kit with mlx, on the MLX twin of the test model; making that takes a few seconds, once."""
    maker = Path("scripts/make_mlx_model.py")
    version = hashlib.sha256(maker.read_bytes()).hexdigest()[:8]
    cache = Path(os.environ.get("RBEE_TEST_CACHE") or Path.home() / ".cache" / "rbee-tests")
    model = cache / f"smollm2-135m-mlx-{version}"
    session.run(sys.executable, str(maker), str(model), external=True)
    run_kit(session, "mlx", str(model))


def kit_xllamacpp(session: nox.Session) -> None:
    """Run the kit with the example of a third party, installed from its own pyproject.toml into a folder of its own."""
    folder = Path("build/kit/xllamacpp").absolute()
    packages = ("xllamacpp", "./examples/rbee-backend-xllamacpp")
    python(session, "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(folder), *packages)
    run_kit(session, "xllamacpp", "smollm2", PYTHONPATH=str(folder))


KITS = {"mlx": kit_mlx, "xllamacpp": kit_xllamacpp}


def run_kit(session: nox.Session, backend: str, model: str, **env: str) -> None:
    """Run the kit from this clone, and leave its verdict under build/."""
    written = ("--rbee-verdict", f"build/kit/{backend}.json", "--rbee-badge", f"build/kit/{backend}.svg")
    argv = ("pytest", "features", "--backend", backend, "--model", model, *written, "-q")
    session.run(sys.executable, "-m", *argv, external=True, env=env)


@nox.session(venv_backend="none")
def checklist(session: nox.Session) -> None:
    """Run the executable specification and write CHECKLIST.md, and a page for people under build/."""
    pages = ("--rbee-write-checklist", "CHECKLIST.md", "--rbee-report", "build/report.html")
    python(session, "pytest", "features", "-q", *pages, *session.posargs)
