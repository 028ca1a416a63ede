"""What a run of the kit says about a backend: one row a scenario, and the word that follows from them."""

import platform
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Literal

from rbee_core import __version__ as rbee_version
from rbee_core.backend.base import CAPABILITIES
from rbee_kit import __version__ as kit_version
from rbee_kit.gherkin import CAPABILITY, MANDATORY
from rbee_kit.subject import Subject

NO_SCENARIO = "no scenario asks for it yet"

Outcome = Literal["passed", "failed", "skipped", "undeclared", "not run"]
Word = Literal["conforms", "does not conform", "was not fully checked"]


@dataclass
class Row:
    """One scenario. `part` is its tag; `reason` is empty for one that passed.

    `step` is the one that failed, `raised` what a worker's log says that the plugin raised meanwhile.
    """

    part: str
    scenario: str
    line: int = 0
    outcome: Outcome = "not run"
    reason: str = ""
    step: str = ""
    raised: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """All rows of one backend. `complete` is whether every scenario of the kit has one."""

    subject: Subject
    model: str
    rows: Sequence[Row]
    complete: bool = True
    versions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def word(self) -> Word:
        """The whole in three words."""
        if any(row.outcome == "failed" for row in self.rows):
            return "does not conform"
        enough = ("passed",), ("passed", "skipped", "undeclared")
        checked = all(row.outcome in enough[row.part != MANDATORY] for row in self.rows)
        return "conforms" if self.complete and checked else "was not fully checked"

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "backend": self.subject.backend,
            "model": self.model,
            "verdict": self.word,
            "conforms": self.word == "conforms",
            "capabilities": sorted(self.subject.capabilities),
            "seconds": {"import": round(self.subject.import_s, 3), "devices": round(self.subject.devices_s, 3)},
            "versions": self.versions,
            "scenarios": [asdict(row) for row in self.rows],
        }


def without_scenarios(parts: Container[str], subject: Subject) -> list[Row]:
    """Return a row for each capability that no scenario asks for."""
    silent = sorted(word for word in CAPABILITIES if CAPABILITY + word not in parts)
    return [
        Row(
            CAPABILITY + word,
            f"{word}{' (declared)' if word in subject.capabilities else ''}",
            outcome="skipped",
            reason=NO_SCENARIO,
        )
        for word in silent
    ]


def versions(subject: Subject) -> dict[str, str]:
    """Return what took part in a run."""
    return {
        "kit": kit_version,
        "rbee": rbee_version,
        "plugin": subject.package,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "pytest-bdd": version("pytest-bdd"),
    }
