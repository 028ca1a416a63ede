"""The report: what counts as shown, what CHECKLIST.md says and is held to, and that the pages hold what was seen."""

import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rbee_report import checklist
from rbee_report.behaviours import BEHAVIOURS
from rbee_report.metrics import read
from rbee_report.page import page
from rbee_report.report import Metrics, Outcome, Report, Scenario

ROOT = Path(__file__).parents[2]
METRICS = Metrics(tokens=64, tokens_per_s=41.26, first_token_ms=56, load_ms=470, total_ms=2100, model="m")


def scenario(name: str, outcome: Outcome = "passed", **more: Any) -> Scenario:
    return Scenario("Feature", "features/a.feature", BEHAVIOURS[name], ids=(name,), outcome=outcome, **more)


def report(*scenarios: Scenario, metrics: Metrics | None = METRICS) -> Report:
    return Report("0.1.0", "cpu", "m", "3.11", "Linux", "2030-01-01T00:00:00+00:00", 12.0, scenarios, metrics)


def everything() -> Report:
    return report(*(scenario(name, backend="cpu", model="m") for name in BEHAVIOURS))


def test_a_behaviour_is_shown_when_all_its_scenarios_passed() -> None:
    bad = report(scenario("B3.1"), scenario("B8.1"), scenario("B8.1", "failed", reason="it hung", example="signal 2"))
    found = {b.id: (b.shown, b.reason) for b in bad.behaviours}
    assert found["B3.1"] == (True, "")
    assert found["B8.1"] == (False, "failed: it hung")
    assert found["B1.4"] == (False, "no scenario")


@pytest.mark.parametrize("outcome", ["failed", "skipped", "not run"])
def test_whatever_did_not_pass_shows_nothing(outcome: Outcome) -> None:
    assert report(scenario("B3.1", outcome)).shown == ()


def test_the_page_is_read_back_as_it_was_written() -> None:
    claims = checklist.read(checklist.render(everything()))
    assert {name: claim.title for name, claim in claims.items()} == BEHAVIOURS
    assert all(claim.shown for claim in claims.values())


def test_the_page_changes_only_with_what_it_says() -> None:
    slow = report(*(scenario(name, backend="cpu", model="m", duration_s=9.0) for name in BEHAVIOURS))
    assert checklist.render(slow) == checklist.render(everything())


def test_a_reason_cannot_break_the_table() -> None:
    claims = checklist.read(checklist.render(report(scenario("B3.1", "failed", reason="a | b\n| ✅ | B3.2 | c |"))))
    assert not claims["B3.1"].shown
    assert not claims["B3.2"].shown
    assert len(claims) == len(BEHAVIOURS)


def test_a_claim_that_was_not_shown_is_a_problem() -> None:
    claims = checklist.read(checklist.render(everything()))
    now = report(scenario("B3.1"), scenario("B3.2", "skipped", reason="no GPU"))
    found = list(checklist.problems(claims, now))
    assert len(found) == len(BEHAVIOURS) - 1
    assert "it claims B3.2, which this run did not show: skipped: no GPU" in found


def test_a_missing_line_is_a_problem_and_modesty_is_none() -> None:
    text = checklist.render(report(*(scenario(name) for name in BEHAVIOURS if name != "B3.1")))
    claims = checklist.read("\n".join(line for line in text.splitlines() if "| B3.2 |" not in line))
    assert list(checklist.problems(claims, everything())) == ["it has no line for B3.2"]
    assert checklist.modest(claims, everything()) == ["B3.1"]


def test_other_words_are_a_problem() -> None:
    claims = checklist.read(checklist.render(everything())) | {"B3.1": checklist.Claim(True, "something else")}
    assert list(checklist.problems(claims, everything())) == ["it words B3.1 differently: something else"]


class Reader(HTMLParser):
    """Collects the text and every address in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_html_page_needs_nothing_else_and_shows_everything() -> None:
    details = "<script>alert('no')</script> & the rest"
    bad = scenario("B8.1", "failed", reason="it hung <b>", details=details, step="Then it ends", example="signal 2")
    text = page(report(scenario("B3.1"), bad, scenario("B3.2", "skipped", reason="no GPU")))
    reader = Reader()
    reader.feed(text)
    seen = " ".join(reader.text)
    assert reader.addresses == []
    assert "url(" not in text
    assert "@import" not in text
    for words in (details, "Then it ends: it hung <b>", "no GPU", "signal 2", "41.3", "1 of 45", *BEHAVIOURS):
        assert words in seen


def test_the_json_names_the_scenarios_of_a_behaviour() -> None:
    data = report(scenario("B3.1"), scenario("B3.2", "failed")).as_data()
    json.dumps(data)
    behaviours = {b["id"]: b for b in data["behaviours"]}
    assert data["scenarios"][behaviours["B3.2"]["scenarios"][0]]["outcome"] == "failed"
    assert data["summary"] == {"shown": 1, "behaviours": 45, "passed": 1, "failed": 1, "skipped": 0, "not_run": 0}


def test_metrics_are_read_from_the_command() -> None:
    phases = [{"phase": p, "duration_ms": ms} for p, ms in (("1", 0), ("2", 500), ("3-5", 50), ("7", 400), ("8", 2000))]
    speeds = {"speed_tokens_per_s": 20.5, "generation_tokens_per_s": 30.5}
    answer = {"phases": phases, "tokens": 64, **speeds, "first_token_ms": 56, "model": "m"}
    assert read(answer) == Metrics(64, 30.5, 56, 450, 2950, "m")
    assert read({"error": {"message": "no model"}, "phases": []}).error == "no model"


# A run of pytest of its own.

CONFTEST = """
import pytest
from pytest_bdd import given, parsers, then
from rbee_kit.gherkin import FeatureFile

pytest_plugins = ["rbee_report.plugin"]

def pytest_addoption(parser):
    parser.addoption("--backend", default="no-such-backend")
    parser.addoption("--model", default="no-such-model")

def pytest_configure(config):
    for name in ("B3.1", "B3.2", "B3.3", "B3.4"):
        config.addinivalue_line("markers", name)

def pytest_collect_file(file_path, parent):
    return FeatureFile.from_parent(parent, path=file_path) if file_path.suffix == ".feature" else None

@pytest.fixture
def backend(request):
    return request.config.getoption("--backend")

@given("a backend")
def given_backend(backend):
    pass

@then(parsers.parse("it {does}"))
def ends(does, request):
    if does == "is skipped":
        pytest.skip("not on this machine")
    if does == "breaks afterwards":
        request.addfinalizer(lambda: 1 / 0)
    assert does != "fails", "it failed | on purpose"
"""
FEATURE = """Feature: Registry
  @B3.1
  Scenario: one
    Given a backend
    Then it passes
  @B3.2
  Scenario Outline: two
    Then it <does>
    Examples:
      | does   |
      | passes |
      | fails  |
  @B3.3
  Scenario: three
    Then it is skipped
  @B3.4
  Scenario: four
    Then it breaks afterwards
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "a.feature").write_text(FEATURE)
    (tmp_path / "CHECKLIST.md").write_text(checklist.render(report(scenario("B3.1"), scenario("B3.2"))))
    return tmp_path


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-c", os.devnull, *options]
    for plugin in (
        "cacheprovider",
        "hypothesispytest",
        "anyio",
    ):  # two of them take longer to import than the run takes
        command += ["-p", f"no:{plugin}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        [*command, f"--rootdir={project}", "a.feature"],
        cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_run_is_reported_as_it_was(project: Path) -> None:
    done = run(project, "--rbee-report", "out/report.html", "--rbee-write-checklist", "NEW.md", "-p", "randomly")
    data = json.loads((project / "out" / "report.json").read_text())
    ends = {f"{s['title']} {s['example']}".strip(): (s["outcome"], s["reason"]) for s in data["scenarios"]}
    assert done.returncode == 1
    assert ends == {
        "one": ("passed", ""),
        "two does passes": ("passed", ""),
        "two does fails": ("failed", "AssertionError: it failed | on purpose"),
        "three": ("skipped", "not on this machine"),
        "four": ("failed", "in teardown: ZeroDivisionError: division by zero"),
    }
    assert [s["backend"] for s in data["scenarios"] if s["title"] == "one"] == ["no-such-backend"]
    assert [s["step"] for s in data["scenarios"] if s["example"] == "does fails"] == ["Then it fails"]
    assert data["metrics"]["error"]
    assert "it failed | on purpose" in (project / "out" / "report.html").read_text()
    assert [name for name, c in checklist.read((project / "NEW.md").read_text()).items() if c.shown] == ["B3.1"]


def test_json_alone(project: Path) -> None:
    run(project, "--rbee-report", "report.json", "-m", "B3.3")
    assert json.loads((project / "report.json").read_text())["summary"]["not_run"] == 4
    assert not (project / "report.html").exists()


def test_a_checklist_that_claims_too_much_fails_the_run(project: Path) -> None:
    done = run(project, "--rbee-check-checklist", "CHECKLIST.md", "-m", "B3.1")
    assert done.returncode == 1
    assert "it claims B3.2, which this run did not show: not run" in done.stdout
    assert "claims B3.1" not in done.stdout


def test_a_checklist_that_claims_less_does_not(project: Path) -> None:
    (project / "CHECKLIST.md").write_text(checklist.render(report()))
    done = run(project, "--rbee-check-checklist", "CHECKLIST.md", "-m", "B3.1")
    assert done.returncode == 0, done.stdout
    assert "does not claim B3.1 yet" in done.stdout


def test_a_checklist_that_is_not_there_fails_the_run(project: Path) -> None:
    done = run(project, "--rbee-check-checklist", "NONE.md", "-m", "B3.1")
    assert done.returncode == 1
    assert "NONE.md is missing" in done.stdout
