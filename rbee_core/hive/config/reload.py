"""Taking a changed config.toml while the hive runs: what counts at once, what needs a restart, and what is refused.

A file that is wrong changes nothing. Nobody who waits or is served notices: what was asked goes on as it was meant.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Mapping

from rbee_core import aio, wire
from rbee_core.domain import events as ev
from rbee_core.domain.model_settings import ModelSettings, demanded
from rbee_core.domain.worker import Demand, Stay
from rbee_core.errors import RbeeError
from rbee_core.hive.config.models import Models
from rbee_core.hive.config.sections import read_sections
from rbee_core.hive.journal import Journal
from rbee_core.hive.processes.launcher import Launcher
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.supervisor import Supervisor
from rbee_core.hive.terms import Care, LoadDefaults, WorkerTerms
from rbee_core.settings import NAMES, Settings, again

AT_ONCE = frozenset(
    {
        "worker_start_timeout_s", "load_stall_timeout_s", "idle_timeout_s", "probe_interval_s", "restart_delay_s",
        "quarantine_s", "queue_limit", "slots_per_worker", "context_tokens", "threads", "cache_type_k", "cache_type_v",
        "flash_attention", "prompt_cache_bytes", "speculation",
    }
)  # fmt: skip
"""The settings that count from a reload on: the pool's limits, and how a model is loaded. The others need a restart."""

log = logging.getLogger("rbee.hive")


def stays(sections: Mapping[str, ModelSettings]) -> dict[str, Stay]:
    """Return how long the workers of each model stay whose own settings say so."""
    return {name: section.stay for name, section in sections.items()}


def merged(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """Return what is in force after a reload, the names of what changed by it, and of what needs a restart."""
    differ = [name for name in NAMES if getattr(old, name) != getattr(new, name)]
    restart = [name for name in differ if name not in AT_ONCE]
    changed = [name for name in differ if name in AT_ONCE]
    own = {**old.sections, **new.sections}
    changed += [f"models.{name}" for name in _differing(old.models, new.models) if name not in own]
    changed += [f"model.{name}" for name in _differing(old.sections, new.sections)]
    return dataclasses.replace(new, **{name: getattr(old, name) for name in restart}), changed, restart


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


Named = tuple[Mapping[str, str], Mapping[str, ModelSettings]]  # aliases and sections


def started_otherwise(old: Named, new: Named) -> set[str]:
    """Return the sections in whose names other workers would be started now than before."""

    def meant(name: str, aliases: Mapping[str, str], sections: Mapping[str, ModelSettings]) -> Demand:
        return demanded(Demand(aliases.get(name, name)), name, sections)

    return {name for name in {**old[1], **new[1]} if meant(name, *old) != meant(name, *new)}


class Reload:
    """Takes config.toml again for one hive. Belongs to the event loop's thread."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        resolver: Resolver,
        launcher: Launcher,
        supervisor: Supervisor,
        journal: Journal,
    ) -> None:
        self._settings = settings
        self._models = models
        self._resolver = resolver
        self._launcher = launcher
        self._supervisor = supervisor
        self._journal = journal
        self._turn = asyncio.Lock()

    async def __call__(self) -> wire.Reloaded:
        """Take the file as it is now. Raises `InvalidRequest` or `HomeUnusable` for a wrong one; then all stays."""
        async with self._turn:  # or who read an older file might be the last to have it taken
            return await self._reload()

    async def _reload(self) -> wire.Reloaded:
        old = self._settings
        try:
            new = await aio.off_loop(again, old)
            sections = await aio.off_loop(read_sections, new)
        except RbeeError as error:
            log.warning("config.toml was not taken: %s", error)
            raise
        self._settings, changed, restart = merged(old, new)
        changed += [f"model.{name}" for name in _templates(self._models.sections, sections)]
        changed = list(dict.fromkeys(changed))
        self._take(sections)
        log.info("config.toml was taken again: %s", _words(changed, restart))
        self._journal.settings_changed(changed, restart)
        return wire.Reloaded(changed=changed, needs_restart=restart)

    def _take(self, sections: Mapping[str, ModelSettings]) -> None:
        settings, models, resolver = self._settings, self._models, self._resolver
        before, defaults = (models.references.aliases, models.sections), LoadDefaults.of(settings)
        others = started_otherwise(before, (settings.models, sections))
        if resolver.defaults != defaults:
            others |= {"", *sections}
        models.references.take(settings.models)
        models.sections, resolver.defaults = sections, defaults
        self._launcher.terms = WorkerTerms.of(settings)
        limits = Care.of(settings, stays(sections)).limits
        self._supervisor.feed(ev.SettingsChanged(asyncio.get_running_loop().time(), limits, frozenset(others)))


def _templates(old: Mapping[str, ModelSettings], new: Mapping[str, ModelSettings]) -> list[str]:
    """Return the models whose template's file says something else than before."""
    return [n for n in new if n in old and old[n].tuning.chat_template != new[n].tuning.chat_template]


def _words(changed: list[str], restart: list[str]) -> str:
    words = f"changed {', '.join(changed)}" if changed else "nothing changed"
    return f"{words}; a restart is needed for {', '.join(restart)}" if restart else words
