"""`rbee preflight` and `rbee doctor`: is this machine ready, or another node? Looks only: no hive, no engine starts."""

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import click

from rbee_core import API_VERSION, __version__, hardware, wire
from rbee_core.backend.choice import Candidate
from rbee_core.backend.manager import PluginHost
from rbee_core.domain import model_ref
from rbee_core.domain.preflight import (
    BackendFact,
    Check,
    Facts,
    Failure,
    NodeFacts,
    PortState,
    checks,
    node_checks,
    passed,
)
from rbee_core.errors import AddressUnusable, InvalidApiKey, RbeeError
from rbee_core.home import Home
from rbee_core.http.bind import bind
from rbee_core.keeper.flow import compatible
from rbee_core.keeper.hives.address import is_local
from rbee_core.keeper.hives.open import connect
from rbee_core.keeper.options import json_option, node_option
from rbee_core.keeper.screen.render import wants_colour
from rbee_core.keeper.screen.show import show_json
from rbee_core.settings import DEFAULT_MODEL, Settings, load

MARKS = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
COLOURS = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": None}
COMPILERS = {"cc": ("cc", "gcc", "clang"), "c++": ("c++", "g++", "clang++")}


checked_option = node_option("What to check: this machine, or a hive.")


@click.command("preflight")
@checked_option
@json_option
def preflight(node: str, as_json: bool) -> int:
    """Check whether this machine is ready, or another node, and say what to do.

    ✓ is fine, ! works but could be better, - is not for this machine, ✗ has to be mended first and makes the exit
    code 1. Changes nothing.
    """
    return _answer(node, as_json=as_json)


@click.command("doctor")
@checked_option
@json_option
def doctor(node: str, as_json: bool) -> int:
    """The same as preflight."""
    return _answer(node, as_json=as_json)


def _answer(node: str, *, as_json: bool) -> int:
    # The report names broken plugins; Python's last-resort handler would print them a second time.
    logging.getLogger("rbee_core.backend").addHandler(logging.NullHandler())
    settings = load(os.environ)
    answers = checks(collect(settings)) if is_local(node) else node_checks(asked(node, settings))
    if as_json:
        show_json({"ok": passed(answers), "checks": answers})
    else:
        for answer in answers:
            _show(answer)
        click.echo("\nReady." if passed(answers) else "\nNot ready: mend what is marked ✗.")
    return 0 if passed(answers) else 1


def _show(answer: Check) -> None:
    mark = MARKS[answer.status]
    if wants_colour(sys.stdout, os.environ):
        mark = click.style(mark, fg=COLOURS[answer.status])
    click.echo(f"{mark} {answer.name}: {answer.detail}")
    if answer.hint:
        click.echo(f"    → {answer.hint}")


def collect(settings: Settings) -> Facts:
    """Return the facts about this machine."""
    import psutil

    plugins = PluginHost(os.environ)
    host = psutil.virtual_memory()
    backends = tuple(sorted(map(_backend, plugins.candidates()), key=lambda fact: fact.name))
    model, path, model_error, model_hint = _default_model(plugins, settings)
    return Facts(
        python=sys.version_info[:3],
        compilers=tuple(kind for kind, names in COMPILERS.items() if any(map(shutil.which, names))),
        llamacpp_installed=find_spec("llama_cpp") is not None,
        broken_plugins=tuple((r.name, r.failure) for r in plugins.reports() if r.failure),
        backends=backends,
        model=model,
        model_path=path,
        model_error=model_error,
        model_hint=model_hint,
        memory_available_bytes=hardware.available_memory_bytes(),
        memory_total_bytes=host.total,
        **_home(Home(settings.home)),
        **_catalog(settings),
        **_port(settings),
    )


def asked(node: str, settings: Settings) -> NodeFacts:
    """Return what the hive of a node says of itself. Raises `InvalidRequest` for what is no node."""
    with connect(node, settings) as client:
        facts = NodeFacts(address=client.address, ours=__version__, key_given=bool(settings.api_key))
        try:
            health = client.health(attempts=1, timeout_s=settings.connect_timeout_s)
        except RbeeError as error:
            return replace(facts, silent=_failure(error))
        understood = compatible(__version__, health.version) and health.api_version == API_VERSION
        facts = replace(facts, version=health.version, understood=understood)
        try:
            facts = replace(facts, models=len(client.models()))
        except RbeeError as error:
            if error.code == InvalidApiKey.code:
                return replace(facts, refused=_failure(error))
            facts = replace(facts, models_failure=_failure(error))
        try:
            return replace(facts, **_told(client.backends()))
        except RbeeError as error:
            return replace(facts, backends_failure=_failure(error))


def _failure(error: RbeeError) -> Failure:
    return error.message, error.hint


def _told(backends: Sequence[wire.BackendInfo]) -> dict[str, Any]:
    rooms = [
        (device.free_bytes, device.total_bytes)
        for backend in backends
        for device in backend.devices
        if backend.available and device.free_bytes is not None and device.total_bytes is not None
    ]
    facts = (
        BackendFact(
            name=b.name,
            usable=b.available,
            devices=tuple(f"{d.id} ({d.name})" for d in b.devices),
            reason=b.reason,
            hint=b.hint,
        )
        for b in backends
    )
    return {"memory": max(rooms, default=None), "backends": tuple(sorted(facts, key=lambda fact: fact.name))}


def _backend(candidate: Candidate) -> BackendFact:
    name, answer = candidate.backend.name, candidate.availability
    devices = tuple(f"{d.id} ({d.name})" for d in candidate.devices)
    return BackendFact(name=name, usable=answer.usable, devices=devices, reason=answer.reason, hint=answer.hint)


def _default_model(plugins: PluginHost, settings: Settings) -> tuple[str, str, str, str]:
    """Return the default model's reference, path, what keeps it from being found, and what to do."""
    try:
        reference = model_ref.parse(DEFAULT_MODEL, settings.models)
        source = plugins.sources().get(reference.scheme)
        if source is None:
            return str(reference), "", f"no plugin knows {reference.scheme}:", "`rbee plugins` lists plugins"
        if reference.scheme not in ("pkg", "file"):  # others may ask the network
            return str(reference), "fetched at first use", "", ""
        found: Any = source.resolve(reference, ())
        return str(reference), str(found.path), "", ""
    except RbeeError as error:
        return DEFAULT_MODEL, "", error.message, error.hint


def _home(home: Home) -> dict[str, Any]:
    return {
        "home": str(home.path),
        "home_exists": home.path.exists(),
        "home_error": home.fault(),
        "home_open_to_others": home.is_open_to_others(),
        "disk_free_bytes": shutil.disk_usage(home.nearest()).free,
    }


def _catalog(settings: Settings) -> dict[str, Any]:
    from rbee_core.models.catalog import inspect

    try:
        return {"catalog_models": inspect(Home(settings.home).catalog_path), "catalog_error": ""}
    except RbeeError as error:
        return {"catalog_models": None, "catalog_error": error.message}


def _port(settings: Settings) -> dict[str, Any]:
    note = Home(settings.home).running_hive()
    if note is not None and note.port == settings.port:
        return {"port": settings.port, "port_state": "ours", "port_detail": f"pid {note.pid}"}
    state, detail = _listen(settings.host, settings.port)
    return {"port": settings.port, "port_state": state, "port_detail": detail}


def _listen(host: str, port: int) -> tuple[PortState, str]:
    """Try the port the way the hive will, and let go of it."""
    try:
        bind(host, port).close()
    except AddressUnusable as error:
        return "taken" if error.taken else "unusable", error.why.lower()
    return "free", ""
