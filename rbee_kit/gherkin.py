"""Collects feature files as pytest modules, and knows which step definitions fit a step."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pytest_bdd import scenario
from pytest_bdd.feature import get_feature
from pytest_bdd.parser import Feature, Scenario, Step
from pytest_bdd.scenario import scenario_wrapper_template_registry
from pytest_bdd.steps import StepFunctionContext, step_function_context_registry

MANDATORY = "mandatory"
CAPABILITY = "capability."


class FeatureFile(pytest.Module):
    """A feature file: one test a scenario, or one an example of an outline."""

    def _getobj(self) -> ModuleType:
        module = ModuleType(self.path.stem, doc=f"Scenarios of {self.path.name}.")
        module.__file__ = str(self.path)
        for title in read(self.path).scenarios:
            name = f"test_{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}"
            assert not hasattr(module, name), f"{self.path.name}: two scenarios are called {title!r}"
            setattr(module, name, bind(self.path, title))
        return module


def collect(path: Path, parent: pytest.Collector) -> pytest.Collector:
    """Return the collector of a feature file."""
    collector: pytest.Collector = FeatureFile.from_parent(parent, path=path)  # pyright: ignore[reportUnknownMemberType]
    return collector


def part_of(item: pytest.Item) -> str:
    """Return the tag that makes `item` a scenario of the backend part, "" for any other test."""
    return next((m.name for m in item.iter_markers() if m.name == MANDATORY or m.name.startswith(CAPABILITY)), "")


def place_of(item: pytest.Item) -> tuple[str, int]:
    """Return the title of a scenario, and the line in which it stands."""
    template = scenario_wrapper_template_registry.get(item.obj) if isinstance(item, pytest.Function) else None
    return (item.name, 0) if template is None else (template.name, template.line_number)


def steps_of(item: pytest.Item) -> list[str]:
    """Return the steps of a scenario as they stand in its file, none for any other test."""
    template = scenario_wrapper_template_registry.get(item.obj) if isinstance(item, pytest.Function) else None
    return [] if template is None else [step.name for step in template.steps]


def examples_of(item: pytest.Item) -> list[str]:
    """Return the values that an example of an outline fills in, none for any other scenario."""
    called = getattr(item, "callspec", None)
    return [] if called is None else [str(value) for values in called.params.values() for value in values.values()]


def parts_of(folder: Path) -> Counter[str]:
    """Return how many scenarios there are of each part of the specification in `folder`, examples counted singly."""
    scenarios = [s for path in sorted(folder.glob("*.feature")) for s in rendered(read(path))]
    return Counter(tag for s in scenarios for tag in {*s.tags, *s.feature.tags})


def read(path: Path) -> Feature:
    """Parse a feature file."""
    return get_feature(str(path.parent), path.name)


def bind(path: Path, title: str):
    """Return the test function of one scenario."""

    @scenario(path.name, title, features_base_dir=str(path.parent))
    def run() -> None:
        pass

    return run


def definitions(step: Step) -> list[StepFunctionContext]:
    """Return every step definition that fits `step`; pytest-bdd itself would quietly take the last one."""
    known = step_function_context_registry.values()
    return [d for d in known if d.type in (None, step.type) and d.parser.is_matching(step.name)]


def check_unambiguous(scenario: Scenario) -> None:
    """Fail unless exactly one step definition fits each step."""
    for step in scenario.steps:
        found = [d.step_func.__name__ for d in definitions(step)]
        where = f"{scenario.feature.filename}:{step.line_number}"
        assert len(found) == 1, f"{where}: {len(found)} step definitions fit {step.name!r}: {found}"


def rendered(feature: Feature) -> Iterator[Scenario]:
    """Yield each scenario, and each example of an outline, with its values filled in."""
    for template in feature.scenarios.values():
        contexts = [context for examples in template.examples for context in examples.as_contexts()]
        yield from (template.render(context) for context in contexts or [{}])
