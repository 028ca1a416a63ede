"""Whether a machine is ready for rbee, this one or another: from facts to checks, each with what to do. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rbee_core.errors import shorten

# "skipped" is what this machine cannot have, and nobody can do anything about.
Status = Literal["ok", "warning", "failed", "skipped"]
PortState = Literal["free", "ours", "taken", "unusable"]

OLDEST_PYTHON = (3, 11)
DISK_NEEDED_BYTES, DISK_WANTED_BYTES = 200_000_000, 5_000_000_000
MEMORY_NEEDED_BYTES, MEMORY_WANTED_BYTES = 300_000_000, 1_500_000_000
MORE_MEMORY = "close other programs, or use small models"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendFact:
    """A backend as it is here."""

    name: str
    usable: bool
    devices: tuple[str, ...] = ()
    reason: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found on the machine. Sizes in bytes; an empty `…_error` means that all is well.

    `broken_plugins` are pairs of name and reason. `catalog_models` is None where there is no catalog yet.
    """

    python: tuple[int, int, int]
    compilers: tuple[str, ...]
    llamacpp_installed: bool
    broken_plugins: tuple[tuple[str, str], ...]
    backends: tuple[BackendFact, ...]
    model: str
    model_path: str
    model_error: str
    model_hint: str
    home: str
    home_exists: bool
    home_error: str
    home_open_to_others: bool
    catalog_models: int | None
    catalog_error: str
    disk_free_bytes: int
    memory_available_bytes: int
    memory_total_bytes: int
    port: int
    port_state: PortState
    port_detail: str = ""


Failure = tuple[str, str]
"""What is wrong, and what to do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the hive of another node said. Sizes in bytes; None is what it did not come to say.

    `ours` is the version of this command. `memory` is what is free, and what there is, in the memory with most room.
    """

    address: str
    ours: str
    key_given: bool
    silent: Failure | None = None
    version: str = ""
    understood: bool = True
    refused: Failure | None = None
    backends: tuple[BackendFact, ...] | None = None
    backends_failure: Failure | None = None
    memory: tuple[int, int] | None = None
    models: int | None = None
    models_failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """One answer. `detail` is what was found, `hint` what to do about it."""

    name: str
    status: Status
    detail: str
    hint: str = ""


def checks(facts: Facts) -> list[Check]:
    """Return every check, in the order in which a person would mend things."""
    return [
        _python(facts),
        _home(facts),
        _catalog(facts),
        _disk(facts),
        _memory(facts),
        *_plugins(facts),
        *_backends(facts.backends),
        _compilers(facts),
        _model(facts),
        _port(facts),
    ]


def node_checks(facts: NodeFacts) -> list[Check]:
    """Return every check of another node, as far as one that failed lets the next be made."""
    if facts.silent:
        return [Check("Hive", "failed", *facts.silent)]
    found = [Check("Hive", "ok", f"{facts.address} answers"), _version(facts)]
    if facts.refused:
        return [*found, Check("API key", "failed", *facts.refused)]
    return [*found, _key(facts), *_of_node(facts)]


def passed(answers: Sequence[Check]) -> bool:
    """Return whether nothing failed; warnings are allowed."""
    return all(answer.status != "failed" for answer in answers)


def _python(facts: Facts) -> Check:
    version = ".".join(map(str, facts.python))
    if facts.python[:2] >= OLDEST_PYTHON:
        return Check("Python", "ok", version)
    oldest = ".".join(map(str, OLDEST_PYTHON))
    return Check("Python", "failed", f"{version} is too old", f"install Python {oldest} or newer")


def _home(facts: Facts) -> Check:
    if facts.home_error:
        hint = "correct its permissions, or set RBEE_HOME to another folder"
        return Check("RBEE_HOME", "failed", f"{facts.home}: {facts.home_error}", hint)
    if facts.home_open_to_others:
        return Check("RBEE_HOME", "warning", f"{facts.home} is open to other users", f"chmod 700 {facts.home}")
    return Check("RBEE_HOME", "ok", facts.home if facts.home_exists else f"{facts.home} (made at first use)")


def _catalog(facts: Facts) -> Check:
    if facts.catalog_error:
        hint = "a damaged one is kept aside and rebuilt at the next start; for a newer one, update rbee"
        return Check("Catalog", "failed", facts.catalog_error, hint)
    if facts.catalog_models is None:
        return Check("Catalog", "ok", "none yet (made at first use)")
    return Check("Catalog", "ok", _models(facts.catalog_models))


def _disk(facts: Facts) -> Check:
    hint = "free some space, or set RBEE_HOME to a larger disk"
    status = _level(facts.disk_free_bytes, DISK_NEEDED_BYTES, DISK_WANTED_BYTES)
    return Check("Disk", status, f"{_gb(facts.disk_free_bytes)} free", "" if status == "ok" else hint)


def _memory(facts: Facts) -> Check:
    status = _level(facts.memory_available_bytes, MEMORY_NEEDED_BYTES, MEMORY_WANTED_BYTES)
    detail = f"{_gb(facts.memory_available_bytes)} of {_gb(facts.memory_total_bytes)} available"
    return Check("Memory", status, detail, "" if status == "ok" else MORE_MEMORY)


def _plugins(facts: Facts) -> list[Check]:
    hint = "update or uninstall it; RBEE_DISABLE_PLUGINS=NAME leaves it out"
    return [Check(f"Plugin {name}", "warning", shorten(reason), hint) for name, reason in facts.broken_plugins]


def _backends(backends: Sequence[BackendFact]) -> list[Check]:
    """A backend that cannot run here matters only where no other can."""
    found = [_backend(fact) for fact in backends]
    if any(fact.usable for fact in backends):
        return found
    missing = Check("Backends", "failed", "none can run models here", "pip install 'rbee[llamacpp]'")
    return [*found, missing]


def _backend(fact: BackendFact) -> Check:
    if fact.usable:
        return Check(f"Backend {fact.name}", "ok", ", ".join(fact.devices))
    return Check(f"Backend {fact.name}", "warning" if fact.hint else "skipped", fact.reason, fact.hint)


def _compilers(facts: Facts) -> Check:
    missing = [name for name in ("cc", "c++") if name not in facts.compilers]
    if not missing:
        return Check("Compilers", "ok", ", ".join(facts.compilers))
    what = f"{' and '.join(missing)} not found"
    if facts.llamacpp_installed or any(fact.usable for fact in facts.backends):
        return Check("Compilers", "warning", f"{what}; needed only to build llama-cpp-python anew")
    return Check("Compilers", "failed", f"{what}; llama-cpp-python is built with them", "install a C and C++ compiler")


def _model(facts: Facts) -> Check:
    if facts.model_error:
        return Check("Default model", "warning", facts.model_error, facts.model_hint or "`rbee models pull` fetches it")
    return Check("Default model", "ok", f"{facts.model}: {facts.model_path}")


def _port(facts: Facts) -> Check:
    match facts.port_state:
        case "free":
            return Check("Port", "ok", f"{facts.port} is free")
        case "ours":
            return Check("Port", "ok", f"{facts.port} is used by this RBEE_HOME's hive ({facts.port_detail})")
        case "taken":
            hint = "`rbee hive start --port 0` takes a free one; `rbee infer` needs none"
            return Check("Port", "warning", f"{facts.port} is used by another program", hint)
        case "unusable":
            hint = "correct host and port in config.toml or the environment"
            return Check("Port", "failed", f"cannot listen on {facts.port}: {facts.port_detail}", hint)


def _version(facts: NodeFacts) -> Check:
    if facts.understood:
        return Check("Version", "ok", facts.version)
    hint = "install the same version of rbee on both machines"
    return Check("Version", "failed", f"{facts.version} there, {facts.ours} here", hint)


def _key(facts: NodeFacts) -> Check:
    return Check("API key", "ok", "accepted" if facts.key_given else "none is needed")


def _of_node(facts: NodeFacts) -> list[Check]:
    """Return what can be asked only with the right key."""
    found: list[Check] = []
    if facts.models_failure:
        found.append(Check("Catalog", "failed", *facts.models_failure))
    elif facts.models is not None:
        found.append(Check("Catalog", "ok", _models(facts.models)))
    if facts.memory is not None:
        free, total = facts.memory
        status = _level(free, MEMORY_NEEDED_BYTES, MEMORY_WANTED_BYTES)
        hint = "" if status == "ok" else MORE_MEMORY
        found.append(Check("Memory", status, f"{_gb(free)} of {_gb(total)} available", hint))
    if facts.backends_failure:
        found.append(Check("Backends", "failed", *facts.backends_failure))
    elif facts.backends is not None:
        found += _backends(facts.backends)
    return found


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"


def _level(have: int, needed: int, wanted: int) -> Status:
    return "failed" if have < needed else "warning" if have < wanted else "ok"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
