"""The specification keeps its own rules: ids, sentences, steps, and what CHECKLIST.md claims of it."""

import ast
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
from pytest_bdd.parser import Scenario, ScenarioTemplate
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry

from rbee_core.backend.base import CAPABILITIES
from rbee_kit.gherkin import check_unambiguous, definitions, read, rendered
from rbee_report import checklist
from rbee_report.behaviours import BEHAVIOURS, GROUPS

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "features").glob("**/*.feature"))
MAX_STEPS = 8
CAPABILITY_TAGS = {f"capability.{word}" for word in CAPABILITIES}
# How it works is not what it does: none of these belongs into a scenario.
MECHANISMS = re.compile(
    r"https?:|/v1/|127\.0\.0\.1|localhost:|json_|\bJSON\b|\bsleep|\bmock|\bpatch\b|asyncio|\b\w+\(\)|[a-z]+[A-Z]\w+"
)
PROPER_NAMES = re.compile(r"\bOpenAI\b")  # which only look like words of a program
BUILTIN = "pytest_bdd.plugin"


def templates() -> list[ScenarioTemplate]:
    return [template for path in FILES for template in read(path).scenarios.values()]


def ids(scenario: ScenarioTemplate) -> set[str]:
    return scenario.tags & BEHAVIOURS.keys()


def examples() -> list[Scenario]:
    return [scenario for path in FILES for scenario in rendered(read(path))]


def own_definitions() -> list[StepFunctionContext]:
    return [d for d in step_function_context_registry.values() if d.step_func.__module__ != BUILTIN]


def claims() -> dict[str, checklist.Claim]:
    return checklist.read((ROOT / "CHECKLIST.md").read_text(encoding="utf-8"))


def test_the_checklist_has_every_id_with_its_words() -> None:
    assert {name: claim.title for name, claim in claims().items()} == BEHAVIOURS
    assert len(BEHAVIOURS) == 45


def test_what_the_checklist_claims_has_a_scenario() -> None:
    proven = {name for template in templates() for name in ids(template)}
    assert {name for name, claim in claims().items() if claim.shown} == proven


def test_an_id_belongs_to_one_scenario_with_its_words() -> None:
    titles = [(name, template.name) for template in templates() for name in ids(template)]
    assert {name: count for name, count in Counter(name for name, _ in titles).items() if count > 1} == {}
    assert {name: title for name, title in titles if title != BEHAVIOURS[name]} == {}


def test_every_tag_is_known_and_ids_stand_in_their_group() -> None:
    for template in templates():
        assert template.tags <= BEHAVIOURS.keys() | CAPABILITY_TAGS | {"scripted"}, template.name
        assert template.feature.tags <= GROUPS.keys() | {"mandatory"}, template.feature.filename
        assert len(ids(template)) <= 1, template.name
        assert {name.partition(".")[0] for name in ids(template)} <= template.feature.tags, template.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenarios_say_one_thing_each(path: Path) -> None:
    for template in read(path).scenarios.values():
        kinds = [step.type for step in template.steps]
        assert kinds.count("when") == 1, template.name
        assert 2 <= len(kinds) <= MAX_STEPS, template.name
        assert kinds[-1] == "then", template.name
        assert kinds == sorted(kinds, key=("given", "when", "then").index), template.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenarios_speak_of_what_can_be_observed(path: Path) -> None:
    lines = [PROPER_NAMES.sub("", line.strip()) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line for line in lines if MECHANISMS.search(line) and not line.startswith("@")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_exactly_one_definition_fits_each_step(path: Path) -> None:
    for scenario in rendered(read(path)):
        check_unambiguous(scenario)


def test_every_step_definition_is_used() -> None:
    used = {id(d) for scenario in examples() for step in scenario.steps for d in definitions(step)}
    assert [d.parser.name for d in own_definitions() if id(d) not in used] == []


def test_steps_are_plain_functions_that_neither_wait_nor_pretend() -> None:
    for definition in own_definitions():
        step = definition.step_func
        assert not inspect.iscoroutinefunction(step), step
        assert not re.search(r"\bsleep\(|monkeypatch|[Mm]ock|\bawait\b", inspect.getsource(step)), step


def test_every_then_asserts() -> None:
    for definition in own_definitions():
        if definition.type == "then":
            tree = ast.parse(inspect.getsource(definition.step_func))
            calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
            asserts = any(isinstance(node, ast.Assert) for node in ast.walk(tree))
            assert asserts or "eventually" in calls, definition.step_func
