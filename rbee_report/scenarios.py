"""Turns what pytest says about its items into scenarios of the report."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from pytest_bdd.parser import ScenarioTemplate
from pytest_bdd.scenario import scenario_wrapper_template_registry

from rbee_kit.telling import RAISED
from rbee_report.behaviours import BEHAVIOURS
from rbee_report.report import Outcome, Scenario

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
DETAIL_CHARACTERS = 20_000
MODEL_CHARACTERS = 80


def template_of(item: pytest.Item) -> ScenarioTemplate | None:
    """Return pytest-bdd's own description of a scenario, None for any other test."""
    return scenario_wrapper_template_registry.get(item.obj) if isinstance(item, pytest.Function) else None


@dataclass(slots=True)
class _Watched:
    scenario: Scenario
    reports: list[pytest.TestReport] = field(default_factory=list[pytest.TestReport])
    step: str = ""


class Watcher:
    """Every scenario that was collected, in the order of the files, and what came of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._watched: dict[str, _Watched] = {}

    @property
    def ran(self) -> bool:
        """Whether any of them ran."""
        return any(watched.reports for watched in self._watched.values())

    def add(self, item: pytest.Item) -> None:
        """Take note of an item if it is a scenario, before anything deselects it."""
        template = template_of(item)
        if template is None:
            return
        path = Path(template.feature.filename)
        file = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        scenario = Scenario(
            feature=template.feature.name,
            file=file.as_posix(),
            title=template.name,
            example=_example(item),
            ids=tuple(sorted(template.tags & BEHAVIOURS.keys())),
        )
        self._watched.setdefault(item.nodeid, _Watched(scenario))

    def failed_at(self, nodeid: str, step: str) -> None:
        """Take note of the step at which a scenario failed."""
        if nodeid in self._watched:
            self._watched[nodeid].step = step

    def saw(self, report: pytest.TestReport) -> None:
        """Take note of how set-up, the scenario itself or the cleaning up ended."""
        if report.nodeid in self._watched:
            self._watched[report.nodeid].reports.append(report)

    def scenarios(self) -> tuple[Scenario, ...]:
        """Return all of them, in an order that does not depend on that in which they ran."""
        found = [_ended(watched) for watched in self._watched.values()]
        return tuple(sorted(found, key=lambda s: (s.file, s.title, s.example)))


def _example(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    values: dict[str, str] = callspec.params.get("_pytest_bdd_example", {}) if callspec else {}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _ended(watched: _Watched) -> Scenario:
    if not watched.reports:
        return watched.scenario
    worst = next((r for r in watched.reports if r.failed), None) or next(
        (r for r in watched.reports if r.skipped), watched.reports[-1]
    )
    outcome: Outcome = "failed" if worst.failed else "skipped" if worst.skipped else "passed"
    properties: dict[str, object] = {}
    for report in watched.reports:
        properties |= dict(report.user_properties)
    return replace(
        watched.scenario,
        outcome=outcome,
        reason=_reason(worst),
        step=watched.step if outcome == "failed" else "",
        details=_details(worst) if outcome == "failed" else "",
        duration_s=round(sum(r.duration for r in watched.reports), 3),
        backend=str(properties.get("backend", "")),
        model=_name(str(properties.get("model", ""))),
    )


def _details(report: pytest.TestReport) -> str:
    """Return the whole of what went wrong, and what a worker's plugin raised meanwhile."""
    sections = [text for title, text in report.sections if title == RAISED]
    return ANSI.sub("", "\n\n".join([*sections, report.longreprtext]))[-DETAIL_CHARACTERS:]


def _name(model: str) -> str:
    """Return a model's reference as it can be shown: where a file lies on this machine is nobody's business."""
    shown = model.rpartition("/")[2] if model.startswith(("/", "file:")) else model
    return "".join(c if c.isprintable() else "?" for c in shown)[:MODEL_CHARACTERS]


def _reason(report: pytest.TestReport) -> str:
    """Return one line: why it was skipped, or the first line of what went wrong."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):
        return _line(str(report.longrepr[2]).removeprefix("Skipped: "))
    crash = getattr(report.longrepr, "reprcrash", None)
    text = str(crash.message) if crash is not None else report.longreprtext
    where = "" if report.when == "call" else f"in {report.when}: "
    return where + _line(text)


def _line(text: str) -> str:
    lines = [line for line in ANSI.sub("", text).splitlines() if line.strip()]
    return lines[0].strip()[:300] if lines else ""
