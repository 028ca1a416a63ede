"""Tells of a failure what its reader can use: the step, the lines of the scenario's own code, the plugin's traceback.

pytest alone would begin with its own frames and pytest-bdd's, and what a plugin raised stays in a worker's log.
"""

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from rbee_kit.gherkin import FeatureFile
from rbee_kit.program import Home

TRACEBACK = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)+\S.*", re.MULTILINE)
TRACEBACKS = 3
CHARACTERS = 4000
MACHINERY = ("pytest_bdd", "_pytest", "pluggy")
STEP, RAISED = "step", "raised in a worker"
HOME = pytest.StashKey[Home]()
_step = pytest.StashKey[str]()


def pytest_bdd_step_error(request: pytest.FixtureRequest, step: Any) -> None:
    """Take note of the step that failed."""
    request.node.stash[_step] = f"{step.keyword} {step.name}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Leave the machinery out of a scenario's failure, and add what happened elsewhere."""
    if call.excinfo is not None and isinstance(item.parent, FeatureFile):
        own = call.excinfo.traceback.filter(lambda entry: not set(MACHINERY) & set(Path(entry.path).parts))
        call.excinfo.traceback = own or call.excinfo.traceback
    report = yield
    if report.failed and isinstance(item.parent, FeatureFile):
        if step := item.stash.get(_step, ""):
            report.sections.append((STEP, step))
        if home := item.stash.get(HOME, None):
            report.sections += [(RAISED, text) for text in raised(home)]
    return report


def section(report: pytest.TestReport, name: str) -> str:
    """Return what a report says under `name`, "" for nothing."""
    return "\n\n".join(text for title, text in report.sections if title == name)


def raised(home: Home) -> list[str]:
    """Return the last new tracebacks in the logs of a home's workers, each once."""
    found = [text for log in home.worker_logs() for text in TRACEBACK.findall(log)]
    return [text[-CHARACTERS:] for text in dict.fromkeys(found)][-TRACEBACKS:]
