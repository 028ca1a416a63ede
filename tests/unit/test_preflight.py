"""From facts about a machine to checks, each with what to do."""

from dataclasses import replace
from typing import Any

import pytest

from rbee_core.domain.preflight import BackendFact, Check, Facts, NodeFacts, checks, node_checks, passed

GOOD = Facts(
    python=(3, 12, 1),
    compilers=("cc", "c++"),
    llamacpp_installed=True,
    broken_plugins=(),
    backends=(BackendFact(name="llamacpp-cpu", usable=True, devices=("cpu (CPU)",)),),
    model="pkg:a/b.gguf",
    model_path="/site/b.gguf",
    model_error="",
    model_hint="",
    home="/home/me/.rbee",
    home_exists=True,
    home_error="",
    home_open_to_others=False,
    catalog_models=3,
    catalog_error="",
    disk_free_bytes=10**11,
    memory_available_bytes=10**10,
    memory_total_bytes=2 * 10**10,
    port=7835,
    port_state="free",
)
UNUSABLE = BackendFact(name="llamacpp-cuda", usable=False, reason="no driver", hint="install one")


def find(facts: Facts, name: str) -> Check:
    return next(check for check in checks(facts) if check.name == name)


def test_good_machine_passes_without_a_word_of_advice() -> None:
    answers = checks(GOOD)

    assert passed(answers)
    assert {answer.status for answer in answers} == {"ok"}
    assert not any(answer.hint for answer in answers)
    assert len({answer.name for answer in answers}) == len(answers)


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"python": (3, 10, 9)}, "Python", "failed"),
        ({"home_error": "it cannot be made in /"}, "RBEE_HOME", "failed"),
        ({"home_open_to_others": True}, "RBEE_HOME", "warning"),
        ({"catalog_error": "models.db is damaged"}, "Catalog", "failed"),
        ({"disk_free_bytes": 10**8}, "Disk", "failed"),
        ({"disk_free_bytes": 10**9}, "Disk", "warning"),
        ({"memory_available_bytes": 10**8}, "Memory", "failed"),
        ({"memory_available_bytes": 10**9}, "Memory", "warning"),
        ({"broken_plugins": (("broken", "ImportError: no"),)}, "Plugin broken", "warning"),
        ({"backends": ()}, "Backends", "failed"),
        ({"backends": (UNUSABLE,)}, "Backends", "failed"),
        ({"backends": (*GOOD.backends, UNUSABLE)}, "Backend llamacpp-cuda", "warning"),
        ({"model_error": "not installed"}, "Default model", "warning"),
        ({"port_state": "taken"}, "Port", "warning"),
        ({"port_state": "unusable", "port_detail": "no such address"}, "Port", "failed"),
        ({"compilers": (), "llamacpp_installed": False, "backends": ()}, "Compilers", "failed"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(change: dict, name: str, status: str) -> None:
    facts = replace(GOOD, **change)
    answer = find(facts, name)

    assert answer.status == status
    assert answer.detail
    assert answer.hint
    assert passed(checks(facts)) is (status != "failed")


def test_compilers_hardly_matter_where_the_engine_is_installed() -> None:
    answer = find(replace(GOOD, compilers=("cc",)), "Compilers")

    assert answer.status == "warning"
    assert "c++ not found" in answer.detail


def test_what_this_machine_cannot_have_is_no_warning() -> None:
    metal = BackendFact(name="llamacpp-metal", usable=False, reason="Metal needs a Mac")

    assert find(replace(GOOD, backends=(*GOOD.backends, metal)), "Backend llamacpp-metal").status == "skipped"


def test_nothing_is_wrong_with_a_machine_that_never_ran_rbee() -> None:
    facts = replace(GOOD, home_exists=False, catalog_models=None)

    assert passed(checks(facts))
    assert "made at first use" in find(facts, "RBEE_HOME").detail


def test_own_hive_may_use_the_port() -> None:
    answer = find(replace(GOOD, port_state="ours", port_detail="pid 7"), "Port")

    assert answer.status == "ok"
    assert "pid 7" in answer.detail


NODE = NodeFacts(
    address="bee:7835",
    ours="1.0.0",
    key_given=True,
    version="1.0.1",
    backends=GOOD.backends,
    memory=(10**10, 2 * 10**10),
    models=1,
)
WRONG = ("it is wrong", "mend it")


def test_a_good_node_passes_without_a_word_of_advice() -> None:
    answers = node_checks(NODE)

    assert [answer.name for answer in answers] == [
        "Hive", "Version", "API key", "Catalog", "Memory", "Backend llamacpp-cpu"
    ]  # fmt: skip
    assert {(answer.status, answer.hint) for answer in answers} == {("ok", "")}


@pytest.mark.parametrize(
    ("change", "name", "others"),
    [
        ({"silent": WRONG}, "Hive", set[str]()),
        ({"understood": False}, "Version", {"Hive", "API key", "Catalog", "Memory", "Backend llamacpp-cpu"}),
        ({"refused": WRONG}, "API key", {"Hive", "Version"}),
        ({"models_failure": WRONG}, "Catalog", {"Hive", "Version", "API key", "Memory", "Backend llamacpp-cpu"}),
        (
            {"backends": None, "memory": None, "backends_failure": WRONG},
            "Backends",
            {"Hive", "Version", "API key", "Catalog"},
        ),
        ({"backends": ()}, "Backends", {"Hive", "Version", "API key", "Catalog", "Memory"}),
        ({"memory": (10**8, 10**10)}, "Memory", {"Hive", "Version", "API key", "Catalog", "Backend llamacpp-cpu"}),
    ],
)
def test_what_is_wrong_with_a_node_is_one_check(change: dict[str, Any], name: str, others: set[str]) -> None:
    answers = node_checks(replace(NODE, **change))
    assert {answer.name for answer in answers if answer.status == "failed"} == {name}
    assert all(answer.hint for answer in answers if answer.status == "failed")
    assert {answer.name for answer in answers if answer.status == "ok"} == others
