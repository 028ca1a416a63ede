"""What the backend under test says of itself, asked in a process of its own: a plugin may hang or exit when imported.

`python -m rbee_kit.subject NAME` prints it as JSON.
"""

import json
import logging
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field

ASKING_S = 60.0


@dataclass(frozen=True)
class Subject:
    """A backend, the package that brings it, and what it declares. `problem` says why it cannot be tested here."""

    backend: str
    package: str = ""
    capabilities: frozenset[str] = field(default_factory=frozenset[str])
    problem: str = ""


def ask(backend: str) -> Subject:
    """Ask the installed plugins."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RBEE_", "PYTEST_"))}
    argv = [sys.executable, "-P", "-m", "rbee_kit.subject", backend]
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=ASKING_S, check=True)
    except subprocess.TimeoutExpired:
        return Subject(backend, problem=f"the plugins did not register within {ASKING_S:g} s")
    except subprocess.CalledProcessError as error:
        return Subject(backend, problem=f"the plugins cannot be asked: {error.stderr.strip()[-500:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Subject(backend, said["package"], frozenset(said["capabilities"]), said["problem"])


def look(name: str) -> Subject:
    """Look at the plugins that this process can import."""
    from rbee_core.backend.choice import ask as ask_backend
    from rbee_core.backend.manager import PluginHost

    host = PluginHost({})
    report = next((r for r in host.reports() if name in r.backends), None)
    if report is None:
        there = ", ".join(sorted(host.backends())) or "none"
        failed = "".join(f"; plugin {r.name} failed: {r.failure}" for r in host.reports() if r.failure)
        return Subject(name, problem=f"no installed plugin brings the backend {name} (there are: {there}){failed}")
    backend = host.backends()[name]
    available = ask_backend(backend).availability
    problem = "" if available.usable else f"{name} cannot run here: {available.reason}. {available.hint}".strip()
    return Subject(name, f"{report.distribution} {report.version}".strip(), backend.capabilities, problem)


def main() -> None:
    """Print what a backend says of itself."""
    logging.getLogger("rbee_core.backend").addHandler(logging.NullHandler())
    subject = look(sys.argv[1])
    print(json.dumps({**asdict(subject), "capabilities": sorted(subject.capabilities)}))  # noqa: T201


if __name__ == "__main__":
    main()
