"""What a run of the specification showed: scenarios, their ends, and which behaviours they prove. Only data."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rbee_report.behaviours import BEHAVIOURS

Outcome = Literal["passed", "failed", "skipped", "not run"]
OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "skipped", "not run")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario, or one example of an outline, and how it ended.

    `backend` and `model` are empty where the scenario needs none. `reason` is one line, `details` the whole text.
    """

    feature: str
    file: str
    title: str
    example: str = ""
    ids: tuple[str, ...] = ()
    outcome: Outcome = "not run"
    reason: str = ""
    step: str = ""
    details: str = ""
    duration_s: float = 0.0
    backend: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What one real inference took at the end of the run. Zeros and an error if it failed."""

    tokens: int = 0
    tokens_per_s: float = 0.0
    first_token_ms: int = 0
    load_ms: int = 0
    total_ms: int = 0
    model: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One of the 45, its scenarios in this run, and why it is not shown if it is not."""

    id: str
    title: str
    shown: bool
    reason: str
    scenarios: tuple[Scenario, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run."""

    rbee_version: str
    backend: str
    model: str
    python: str
    platform: str
    started_at: str
    duration_s: float
    scenarios: tuple[Scenario, ...]
    metrics: Metrics | None = None
    behaviours: tuple[Behaviour, ...] = field(init=False)

    def __post_init__(self) -> None:
        found = tuple(behaviour(name, self.scenarios) for name in BEHAVIOURS)
        object.__setattr__(self, "behaviours", found)

    def count(self, outcome: Outcome) -> int:
        """Return how many scenarios ended so."""
        return sum(s.outcome == outcome for s in self.scenarios)

    @property
    def shown(self) -> tuple[str, ...]:
        """The ids that this run proves."""
        return tuple(b.id for b in self.behaviours if b.shown)

    def as_data(self) -> dict[str, Any]:
        """Return it for JSON; a behaviour names its scenarios by their place in the list."""
        data = asdict(self)
        places = {id(scenario): n for n, scenario in enumerate(self.scenarios)}
        for plain, own in zip(data["behaviours"], self.behaviours, strict=True):
            plain["scenarios"] = [places[id(scenario)] for scenario in own.scenarios]
        counts = {outcome.replace(" ", "_"): self.count(outcome) for outcome in OUTCOMES}
        return {"summary": {"shown": len(self.shown), "behaviours": len(BEHAVIOURS), **counts}, **data}


def behaviour(name: str, scenarios: Sequence[Scenario]) -> Behaviour:
    """Return what these scenarios say of one behaviour: it is shown when it has some and all of them passed."""
    own = tuple(s for s in scenarios if name in s.ids)
    bad = next((s for s in own if s.outcome != "passed"), None)
    reason = "" if own else "no scenario"
    if bad is not None:
        reason = f"{bad.outcome}: {bad.reason}" if bad.reason else bad.outcome
    return Behaviour(name, BEHAVIOURS[name], shown=bool(own) and bad is None, reason=reason, scenarios=own)
