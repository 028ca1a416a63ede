"""The checks. `check` is all that CI runs; `fast` is for daily use. Both use the environment they are started from."""

import sys

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
    """Everything: static checks, all tests, and the executable specification on the real model."""
    static(session)
    python(session, "pytest", "tests", "features", "-q", *session.posargs)
