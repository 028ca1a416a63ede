"""Steps about the hive that a backend's workers belong to."""

from pytest_bdd import given, parsers, then, when

from rbee_kit import given as given_source
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually


@given("a running hive", target_fixture="hive")
def running_hive(home: Home) -> Hive:
    return home.start_hive()


@given(
    parsers.parse("a running hive that lets a worker write {count:d} texts at a time"),
    target_fixture="hive",
)
def hive_with_slots(home: Home, count: int) -> Hive:
    home.environment["RBEE_SLOTS_PER_WORKER"] = str(count)
    return home.start_hive()


@given("a running hive that gives a backend whatever it is told to", target_fixture="hive")
def hive_without_checks(home: Home) -> Hive:
    home.use_plugins_in(given_source.install(home.folder / "source"))
    return home.start_hive()


@when("the hive is killed")
def kill_hive(hive: Hive) -> None:
    hive.kill()


@then("the hive is alive and has no workers")
def alive_without_workers(hive: Hive) -> None:
    assert hive.client.health().status == "alive"
    eventually(lambda: not hive.client.list_workers(), 2, what="the registry is empty")


@then(parsers.parse("nothing is left running within {seconds:d} seconds"))
def nothing_left_within(home: Home, seconds: int) -> None:
    eventually(lambda: not home.processes(), seconds, what="no process is left")
