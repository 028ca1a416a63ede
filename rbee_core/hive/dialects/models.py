"""The models that foreign clients may name: those that are on this node, under the names they know.

A request from a client that asks for whatever its list says must never begin a download: `here` is what decides.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rbee_core import aio, wire
from rbee_core.backend import LocalModel
from rbee_core.domain.model_ref import parse
from rbee_core.domain.model_settings import demanded
from rbee_core.domain.pool import Pool
from rbee_core.domain.worker import Demand, Worker
from rbee_core.errors import InvalidRequest, ModelNotFound, RbeeError, shorten
from rbee_core.hive.config.models import ForModel, Models
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.terms import LoadDefaults
from rbee_core.models.catalog import Catalog, CatalogRow
from rbee_core.models.provision import Provisioner

WINDOWS_S = 0.5
"""So long a list waits for windows that are not known yet; it is asked for again and again, and then they are."""
LISTED = "`GET /v1/models` lists what is here"
ASKS_NOBODY = frozenset({"pkg", "file"})
"""Schemes whose models are looked for on this node alone."""


_Asked = tuple[CatalogRow, Demand, LoadDefaults]
"""What a window follows from; settings may change while the hive runs."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as foreign lists show it. `window` is what a request may use in tokens, None while nobody knows."""

    id: str
    reference: str
    names: tuple[str, ...]
    created_unix: int
    size_bytes: int
    format: str
    window: int | None
    loaded: bool
    path: Path = Path()
    sha256: str = ""


@dataclass(slots=True)
class ServedModels:
    """The models of one hive."""

    pool: Pool
    catalog: Catalog
    known: Models
    resolver: Resolver
    provisioner: Provisioner
    _windows: dict[_Asked, int] = field(default_factory=dict[_Asked, int], init=False)

    async def named(self, text: str, hint: str = LISTED) -> str:
        """Return the canonical reference of what somebody names, here or not. Raises `ModelNotFound` with `hint`."""
        try:
            return await self.known.name(text)
        except InvalidRequest:
            why = "no model or alias has this name"
            raise ModelNotFound(reference=shorten(text), why=why, hint=hint) from None

    async def here(self, text: str) -> str:
        """Return the canonical reference of a model that somebody names. Asks no network.

        Raises `ModelNotFound` for one that is not on this node, with the command that fetches it if there is one.
        """
        name = await self.named(text)
        if any(name in worker.names for worker in self.pool.live()) or await aio.off_loop(self._entered, name):
            return name
        if parse(name).scheme == "hf" or not isinstance(await self.provisioner.look(name, ()), LocalModel):
            hint = f"`rbee models pull {shorten(text)}` fetches it; {LISTED}"
            raise ModelNotFound(reference=name, why="it is not on this node", hint=hint)
        return name

    async def demand(self, wanted: wire.SpawnRequest | ForModel) -> Demand:
        """Return what `wanted` asks of a worker: with the context of one that has as much, or more, and is else alike.

        Clients that say how much context they need would otherwise have the model loaded anew for each other number.
        """
        demand, tokens = await self.known.demand(wanted), wanted.context_tokens
        if tokens is None:
            return demand
        able = (worker for worker in self.pool.live() if worker.serving and worker.context_tokens >= tokens)
        same = next((d for worker in able for d in worker.demands if _but_context(d) == _but_context(demand)), demand)
        return replace(demand, context_tokens=same.context_tokens)

    def _entered(self, name: str) -> bool:
        row = self.catalog.find(name)
        return row is not None and not self.catalog.is_missing(row)

    async def all(self) -> list[ServedModel]:
        """Return every model that is here, by its id."""
        groups = await aio.off_loop(self._groups)
        for row in await self._unused(groups):
            groups[row.reference] = [row]
        called = {reference: await self._called(rows) for reference, rows in groups.items()}
        asked = [(rows[0], next(iter(called[reference]), "")) for reference, rows in groups.items()]
        windows = await self._all_windows(asked)
        found = [self._served(rows, called[reference], windows) for reference, rows in groups.items()]
        return sorted(found, key=lambda model: model.id)

    async def one(self, text: str) -> ServedModel:
        """Return the model that somebody names. Raises `ModelNotFound`."""
        name = await self.here(text)
        for model in await self.all():
            if name == model.reference or name in model.names:
                return model
        raise ModelNotFound(reference=name, why="it is not on this node", hint=LISTED)

    def _groups(self) -> dict[str, list[CatalogRow]]:
        groups: dict[str, list[CatalogRow]] = {}
        for row in self.catalog.rows():
            if not self.catalog.is_missing(row):
                groups.setdefault(row.place, []).append(row)
        return groups

    async def _unused(self, groups: Mapping[str, list[CatalogRow]]) -> list[CatalogRow]:
        """Return rows for aliases of models that are here and were never used, so that no catalog knows them."""
        known = {row.reference for rows in groups.values() for row in rows}
        rows: list[CatalogRow] = []
        for alias in self.known.references.aliases:
            try:
                name = await self.known.name(alias)
                if name not in known and (scheme := parse(name).scheme) in ASKS_NOBODY:
                    found = await self.provisioner.look(name, ())
                    if isinstance(found, LocalModel):
                        rows.append(_row(found, scheme))
            except RbeeError:  # an alias that leads nowhere is no model
                continue
        return rows

    async def _called(self, rows: list[CatalogRow]) -> list[str]:
        """Return the aliases of a model, in the order of the settings."""
        references = {row.reference for row in rows}
        called: list[str] = []
        for alias in self.known.references.aliases:
            try:
                if await self.known.name(alias) in references:
                    called.append(alias)
            except RbeeError:
                continue
        return called

    def _served(self, rows: list[CatalogRow], called: list[str], windows: Mapping[str, int]) -> ServedModel:
        row, names = rows[0], [*called, *(other.reference for other in rows)]
        worker = self._worker(names)
        return ServedModel(
            id=names[0],
            reference=row.reference,
            names=tuple(names),
            created_unix=row.downloaded_at_unix,
            size_bytes=row.size_bytes,
            format=row.format,
            window=worker.context_tokens if worker else windows.get(row.reference),
            loaded=worker is not None,
            path=Path(row.local_path),
            sha256=row.sha256,
        )

    def _worker(self, names: list[str]) -> Worker | None:
        return next((w for w in self.pool.live() if w.serving and not w.names.isdisjoint(names)), None)

    async def _all_windows(self, asked: list[tuple[CatalogRow, str]]) -> dict[str, int]:
        """Return by reference the windows that models would be loaded with, as far as they are known in time.

        Each is asked for by a name, whose settings count.
        """
        sections, defaults = self.known.sections, self.resolver.defaults
        wanted = [(row, demanded(Demand(row.reference), name, sections), defaults) for row, name in asked]
        try:
            async with asyncio.timeout(WINDOWS_S):
                for one in wanted:
                    await self._learn_window(one)
        except TimeoutError:
            pass
        self._windows = {one: self._windows[one] for one in wanted if one in self._windows}
        return {row.reference: tokens for (row, _, _), tokens in self._windows.items()}

    async def _learn_window(self, asked: _Asked) -> None:
        if asked in self._windows:
            return
        try:
            shown = await self.resolver.show(asked[1])
        except RbeeError:  # what cannot be loaded has no window
            return
        self._windows[asked] = shown.estimate.context_tokens


def _but_context(demand: Demand) -> Demand:
    """Return what makes a worker another one, beside its context; what a request needs only chooses the backend."""
    return replace(demand, context_tokens=None, needs=frozenset())


def _row(model: LocalModel, scheme: str) -> CatalogRow:
    return CatalogRow(
        reference=model.reference,
        provider=scheme,
        local_path=str(model.path),
        size_bytes=model.size_bytes,
        downloaded_at_unix=0,
        format=model.format,
    )
