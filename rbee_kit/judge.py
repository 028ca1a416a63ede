"""Judges a backend: weighs each scenario by what the backend declares, and writes the verdict at the end.

Declared or mandatory and failing is a failure; passing and undeclared a warning; failing and undeclared is skipped,
with its reason. Reads pytest's own reports, so whatever else makes a test fail counts here too.
"""

import json
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from rbee_core.backend import needs
from rbee_core.domain import tuning
from rbee_kit import badge, subject, telling, verdict
from rbee_kit.entry import feature_folder
from rbee_kit.gherkin import CAPABILITY, MANDATORY, examples_of, part_of, parts_of, place_of
from rbee_kit.verdict import Row, Verdict

TITLE = f"rbee conformance kit {verdict.kit_version}"
SUBJECT = pytest.StashKey[subject.Subject]()
REFUSED = {*needs.WORDS, *tuning.WORDS.values()}
"""Words without which rbee itself refuses what needs them."""
MARKS = {"passed": "✓", "failed": "✗", "undeclared": "!"}


class UndeclaredCapability(pytest.PytestWarning):
    """Warns that a backend can do what it does not declare."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that name the verdict's files."""
    group = parser.getgroup("rbee")
    group.addoption("--rbee-verdict", metavar="PATH", help="Write the kit's verdict as JSON.")
    group.addoption("--rbee-badge", metavar="PATH", help="Write the kit's verdict as an SVG badge.")


def pytest_configure(config: pytest.Config) -> None:
    """Start judging. The warning must stay one even where a project turns warnings into errors."""
    config.addinivalue_line("filterwarnings", f"default::{__name__}.{UndeclaredCapability.__name__}")
    config.pluginmanager.register(Judge(config), "rbee-judge")


class Judge:
    """One run: rows by the node they came from."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: dict[str, Row] = {}
        self._absent: dict[str, str] = {}
        self._subject = subject.Subject("")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Take note of the scenarios to come, and ask the backend what it declares."""
        self._rows |= {item.nodeid: _row(item, part) for item in items if (part := part_of(item))}
        if not self._rows:
            return
        backend = str(self._config.getoption("--backend") or "")
        if not backend or not self._config.getoption("--model"):
            raise pytest.UsageError("the kit needs a backend and a model: --backend NAME --model REF")
        self._subject = self._config.stash[SUBJECT] = subject.ask(backend)
        if self._subject.problem:
            raise pytest.UsageError(self._subject.problem)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Remember what was left out: a part of the kit is no verdict."""
        self._rows |= {item.nodeid: _row(item, part) for item in items if (part := part_of(item))}

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Ask for nothing that rbee itself refuses as undeclared, nor again for what was found not to be there."""
        if item.nodeid not in self._rows or self._promised(item):
            return
        word = part_of(item).removeprefix(CAPABILITY)
        if absent := self._absent.get(word, f"{word} is not declared" if word in REFUSED else ""):
            pytest.skip(absent)

    def _promised(self, item: pytest.Item) -> bool:
        """Whether a scenario asks for what every backend does, or for what this one says that it does."""
        word = part_of(item).removeprefix(CAPABILITY)
        return word == MANDATORY or self._subject.promises(word, examples_of(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Soften what a scenario says about a capability that was not declared."""
        report = yield
        if item.nodeid not in self._rows or self._promised(item):
            return report
        word = part_of(item).removeprefix(CAPABILITY)
        if report.failed and call.excinfo is not None:
            reason = f"{word} is not declared, and not there: {_line(call.excinfo.exconly())}"
            report.outcome, report.longrepr = "skipped", (str(item.path), 0, reason)
            self._absent[word] = reason
        elif report.passed and report.when == "call":
            item.warn(UndeclaredCapability(f"{self._subject.backend} can do {word} and does not declare it"))
            self._rows[item.nodeid].outcome = "undeclared"
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Fill in a row: the worst of set-up, call and cleaning up."""
        row = self._rows.get(report.nodeid)
        if row is None:
            return
        row.duration_s = round(row.duration_s + report.duration, 2)
        if report.failed or (report.skipped and row.outcome != "failed"):
            row.outcome = report.outcome
            row.reason = row.reason or _reason(report)
            row.step = row.step or telling.section(report, telling.STEP)
            row.raised = row.raised or telling.section(report, telling.RAISED)
        elif report.when == "call" and row.outcome == "not run":
            row.outcome = "passed"
        if row.outcome == "undeclared":
            row.reason = "passes: declare it"

    def _verdict(self) -> Verdict:
        rows = list(self._rows.values())
        parts = parts_of(feature_folder())
        complete = len(rows) == parts.total()
        rows += verdict.without_scenarios(parts, self._subject)
        rows.sort(key=lambda row: (row.part != MANDATORY, row.part, row.line, row.scenario))
        model = str(self._config.getoption("--model"))
        return Verdict(self._subject, model, rows, complete, verdict.versions(self._subject))

    def pytest_sessionfinish(self) -> None:
        """Write the files."""
        ran = any(row.outcome != "not run" for row in self._rows.values())
        for option, text in (("--rbee-verdict", self._json), ("--rbee-badge", self._badge)):
            if ran and (path := self._config.getoption(option)):
                target = Path(self._config.invocation_params.dir, str(path))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text(), encoding="utf-8")

    def _json(self) -> str:
        return json.dumps(self._verdict().as_data(), indent=2, ensure_ascii=False) + "\n"

    def _badge(self) -> str:
        return badge.draw(f"rbee kit {verdict.kit_version}: {self._subject.backend}", self._verdict().word)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the verdict."""
        if all(row.outcome == "not run" for row in self._rows.values()):
            return
        said = self._verdict()
        terminalreporter.section(TITLE)
        for row in said.rows:
            line = f"{MARKS.get(row.outcome, '-')} {row.outcome:<10} {row.part:<21} {row.scenario}"
            terminalreporter.write_line(f"{line}: {row.reason}" if row.reason else line)
        asked = f"its plugin was imported in {self._subject.import_s:.2f} s"
        terminalreporter.write_line(f"\n{asked}, its devices named in {self._subject.devices_s:.2f} s")
        terminalreporter.write_line(", ".join(f"{name} {number}" for name, number in said.versions.items()))
        markup: dict[str, Any] = {
            "bold": True,
            "green": said.word == "conforms",
            "red": said.word == "does not conform",
        }
        terminalreporter.write_line(f"{self._subject.backend} with {said.model} {said.word}", **markup)


def _row(item: pytest.Item, part: str) -> Row:
    title, line = place_of(item)
    _, bracket, example = item.name.partition("[")
    return Row(part, f"{title} {bracket}{example}".strip(), line)


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return _line(report.longrepr[2].removeprefix("Skipped: "))
    crash = getattr(report.longrepr, "reprcrash", None)
    return _line(str(crash.message) if crash is not None else report.longreprtext)


def _line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return re.sub(r"^([\w.]*Error|Failed): ", "", lines[0])[:300] if lines else ""
