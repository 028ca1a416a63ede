"""What the backend under test says of itself, asked in a process of its own: a plugin may hang or exit when imported.

`python -m rbee_kit.subject NAME` prints it as JSON.
"""

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from typing import Any

ASKING_S = 60.0
SETS = ("capabilities", "obeys")  # JSON has none


@dataclass(frozen=True)
class Subject:
    """A backend, the package that brings it, and what it declares. `problem` says why it cannot be tested here.

    `obeys` are fields of a request that it obeys without the word for all of their kind.

    `import_s` is what importing its plugin took, `devices_s` the answer of `availability` and `devices`: seconds that
    a person waits for, with each command and each spawn.
    """

    backend: str
    package: str = ""
    capabilities: frozenset[str] = field(default_factory=frozenset[str])
    obeys: frozenset[str] = field(default_factory=frozenset[str])
    problem: str = ""
    import_s: float = 0.0
    devices_s: float = 0.0

    def promises(self, word: str, fields: Iterable[str] = ()) -> bool:
        """Whether it declares `word`, or obeys one of `fields` without."""
        return word in self.capabilities or not self.obeys.isdisjoint(fields)


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
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    said |= {name: frozenset(said[name]) for name in SETS}
    return Subject(**said)


def look(name: str) -> Subject:
    """Look at the plugins that this process can import."""
    from rbee_core.backend.choice import ask as ask_backend
    from rbee_core.backend.manager import PluginHost

    imports_s = imported()
    host = PluginHost({})
    report = next((r for r in host.reports() if name in r.backends), None)
    if report is None:
        there = ", ".join(sorted(host.backends())) or "none"
        failed = "".join(f"; plugin {r.name} failed: {r.failure}" for r in host.reports() if r.failure)
        return Subject(name, problem=f"no installed plugin brings the backend {name} (there are: {there}){failed}")
    backend = host.backends()[name]
    asked_at = time.monotonic()
    available = ask_backend(backend).availability
    devices_s = time.monotonic() - asked_at
    problem = "" if available.usable else f"{name} cannot run here: {available.reason}. {available.hint}".strip()
    package = f"{report.distribution} {report.version}".strip()
    return Subject(
        name,
        package,
        backend.capabilities,
        frozenset(backend.obeys),
        problem,
        imports_s.get(report.name, 0.0),
        devices_s,
    )


def imported() -> dict[str, float]:
    """Import each plugin, rbee's own first, as the host does; return the seconds that each took."""
    from rbee_core.backend.manager import GROUP

    took_s: dict[str, float] = {}
    every = entry_points(group=GROUP)
    for entry in sorted(every, key=lambda entry: entry.dist is None or entry.dist.name != "rbee"):
        begun = time.monotonic()
        with contextlib.suppress(Exception, SystemExit):  # the host says what is wrong with it
            entry.load()
        took_s.setdefault(entry.name, time.monotonic() - begun)
    return took_s


def main() -> None:
    """Print what a backend says of itself."""
    logging.getLogger("rbee_core.backend").addHandler(logging.NullHandler())
    subject = look(sys.argv[1])
    print(json.dumps(asdict(subject) | {name: sorted(getattr(subject, name)) for name in SETS}))  # noqa: T201


if __name__ == "__main__":
    main()
