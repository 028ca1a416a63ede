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
    """Everything: static checks, all tests, and the executable specification, which CHECKLIST.md is held to."""
    static(session)
    python(session, "pytest", "tests", "features", "-q", "--rbee-check-checklist", "CHECKLIST.md", *session.posargs)


@nox.session(venv_backend="none")
def checklist(session: nox.Session) -> None:
    """Run the executable specification and write CHECKLIST.md, and a page for people under build/."""
    pages = ("--rbee-write-checklist", "CHECKLIST.md", "--rbee-report", "build/report.html")
    python(session, "pytest", "features", "-q", *pages, *session.posargs)
