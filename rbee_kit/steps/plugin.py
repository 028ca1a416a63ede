"""Steps about the plugin itself, before any hive: what every command waits for."""

import pytest
from pytest_bdd import parsers, then, when

from rbee_kit import subject
from rbee_kit.judge import SUBJECT
from rbee_kit.subject import Subject

LOOKS = 3  # the quickest of so many counts: what the machine does besides is not the plugin's


@when("the backend is asked what it is", target_fixture="looks")
def ask_backend(backend: str, pytestconfig: pytest.Config) -> list[Subject]:
    return [pytestconfig.stash[SUBJECT]]


@then(parsers.re(r"its plugin was imported within (?P<seconds>\d+) seconds?"), converters={"seconds": int})
def imported_within(looks: list[Subject], seconds: int) -> None:
    while (took_s := min(look.import_s for look in looks)) > seconds and len(looks) < LOOKS:
        looks.append(subject.ask(looks[0].backend))
    assert took_s <= seconds, (
        f"importing its plugin takes {took_s:.1f} s, and every command waits for that: let `load` and `prepare` import "
        "the engine"
    )


@then(parsers.re(r"its devices were named within (?P<seconds>\d+) seconds?"), converters={"seconds": int})
def named_within(looks: list[Subject], seconds: int) -> None:
    while (took_s := min(look.devices_s for look in looks)) > seconds and len(looks) < LOOKS:
        looks.append(subject.ask(looks[0].backend))
    assert took_s <= seconds, (
        f"`availability` and `devices` take {took_s:.1f} s, and every spawn waits for that: they may load nothing"
    )
