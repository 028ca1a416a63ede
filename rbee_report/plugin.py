"""The pytest plugin: watches scenarios run, then writes the report and CHECKLIST.md, or holds a CHECKLIST.md to it.

Built on pytest's own hooks, so that skipped, deselected and broken scenarios are in it too. Loaded with
``pytest_plugins = ["rbee_report.plugin"]``.
"""

import json
import platform
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from rbee_core import __version__
from rbee_report import checklist
from rbee_report.metrics import measure
from rbee_report.page import page
from rbee_report.report import Report
from rbee_report.scenarios import Watcher

WATCHED = ("backend", "model")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that ask for a report."""
    group = parser.getgroup("rbee")
    group.addoption(
        "--rbee-report", metavar="PATH", help="Write what the scenarios showed as a page, and as JSON beside it."
    )
    group.addoption("--rbee-write-checklist", metavar="PATH", help="Write the checklist of this run.")
    group.addoption(
        "--rbee-check-checklist", metavar="PATH", help="Fail when this checklist claims what the run did not show."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch this run if a report of it is wanted."""
    options = {name: config.getoption(f"--rbee-{name}") for name in ("report", "write-checklist", "check-checklist")}
    if any(options.values()):
        config.pluginmanager.register(Reporter(config, options), "rbee-report")


class Reporter:
    """One run of pytest, from its first scenario to the pages."""

    def __init__(self, config: pytest.Config, options: dict[str, Any]) -> None:
        self._config = config
        # Now, because a test may leave another working directory behind.
        self._paths = {name: Path(path).absolute() for name, path in options.items() if path}
        self._watcher = Watcher(config.rootpath)
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._said: list[tuple[str, bool]] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Take note of every scenario, before a selection drops some."""
        for item in items:
            self._watcher.add(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Take note of the backend and the model that a scenario asks for."""
        value = yield
        if fixturedef.argname in WATCHED and fixturedef.scope == "function":
            item = cast("pytest.Item", request.node)
            item.user_properties.append((fixturedef.argname, str(value)))
        return value

    def pytest_bdd_step_error(self, request: pytest.FixtureRequest, step: Any) -> None:
        """Take note of the step that failed."""
        self._watcher.failed_at(cast("pytest.Item", request.node).nodeid, f"{step.keyword} {step.name}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take note of how a part of a scenario ended."""
        self._watcher.saw(report)

    # First, so that what is wrong with the checklist still counts when pytest sums up.
    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write what is wanted; a checklist that claims too much fails the run."""
        if not self._watcher.ran:
            self._said.append(("no scenario ran: there is nothing to report", True))
            session.exitstatus = session.exitstatus or pytest.ExitCode.NO_TESTS_COLLECTED
            return
        report = self._report()
        if path := self._paths.get("report"):
            self._write_report(report, path)
        if path := self._paths.get("write-checklist"):
            path.write_text(checklist.render(report), encoding="utf-8")
            self._said.append((f"{path.name} written: {checklist.summary(report)}", False))
        if (path := self._paths.get("check-checklist")) and self._check(report, path):
            session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was written, and what is wrong with the checklist."""
        for sentence, bad in self._said:
            terminalreporter.write_line(sentence, red=bad, bold=bad)

    def _report(self) -> Report:
        backend, model = str(self._config.getoption("--backend")), str(self._config.getoption("--model"))
        scenarios = self._watcher.scenarios()
        wanted = "report" in self._paths or "write-checklist" in self._paths
        return Report(
            rbee_version=__version__,
            backend=backend,
            model=model,
            python=platform.python_version(),
            platform=platform.platform(terse=True),
            started_at=self._started_at.isoformat(timespec="seconds"),
            duration_s=round(time.monotonic() - self._started, 1),
            scenarios=scenarios,
            metrics=measure(backend, model) if wanted and self._watcher.ran else None,
        )

    def _write_report(self, report: Report, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        data = json.dumps(report.as_data(), indent=2, ensure_ascii=False)
        path.with_suffix(".json").write_text(data + "\n", encoding="utf-8")
        if path.suffix != ".json":
            path.write_text(page(report), encoding="utf-8")
        self._said.append((f"report: {path}", False))

    def _check(self, report: Report, path: Path) -> bool:
        """Say what is wrong with a checklist; return whether something is."""
        if not path.is_file():
            self._said.append((f"{path} is missing: `make checklist` writes it", True))
            return True
        claims = checklist.read(path.read_text(encoding="utf-8"))
        found = list(checklist.problems(claims, report))
        self._said += [(f"{path.name}: {sentence}", True) for sentence in found]
        if modest := checklist.modest(claims, report):
            self._said.append((f"{path.name} does not claim {', '.join(modest)} yet: run `make checklist`", False))
        return bool(found)
