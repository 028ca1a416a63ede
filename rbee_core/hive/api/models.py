"""The hive's routes about models: listing, showing, downloading with progress, removing."""

from collections.abc import Mapping, Sequence

from aiohttp import web

from rbee_core import aio, wire
from rbee_core.backend import LocalModel
from rbee_core.errors import RouteNotFound
from rbee_core.hive.config.models import Models, sampling_of
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.supervisor import Supervisor
from rbee_core.http.body import read_body
from rbee_core.http.middleware import json_response
from rbee_core.http.routes import read_query
from rbee_core.http.stream import send_events
from rbee_core.models.catalog import Catalog, CatalogRow
from rbee_core.models.downloads import Downloads
from rbee_core.models.provision import Provisioner


class ModelRoutes:
    """One hive's model routes."""

    def __init__(
        self,
        write_timeout_s: float,
        supervisor: Supervisor,
        catalog: Catalog,
        models: Models,
        provisioner: Provisioner,
        resolver: Resolver,
        downloads: Downloads,
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._supervisor = supervisor
        self._catalog = catalog
        self._models = models
        self._provisioner = provisioner
        self._resolver = resolver
        self._downloads = downloads

    async def check(self) -> None:
        """Raise what a spawn would raise if the catalog cannot be used."""
        await aio.off_loop(self._catalog.rows)

    async def list_models(self, request: web.Request) -> web.Response:
        """List the catalog."""
        del request
        aliases = await self._models.aliases()
        return json_response(wire.ModelList(models=await aio.off_loop(self._describe_all, aliases)))

    def _describe_all(self, aliases: Mapping[str, Sequence[str]]) -> list[wire.ModelInfo]:
        models: dict[str, list[CatalogRow]] = {}
        for row in self._catalog.rows():
            models.setdefault(row.place, []).append(row)
        described = [_describe(row, others, missing=self._catalog.is_missing(row)) for row, *others in models.values()]
        for model in described:
            model.aliases = [alias for name in (model.reference, *model.names) for alias in aliases.get(name, ())]
        return described

    async def show(self, request: web.Request) -> web.Response:
        """Show a model on this node and what a worker for it would need."""
        wanted = read_query(request, wire.ModelQuery)
        resolution = await self._resolver.show(await self._models.show(wanted))
        model, estimate, best = resolution.model, resolution.estimate, resolution.best
        own = self._models.own(wanted.model)
        return json_response(
            wire.ModelDetails(
                reference=model.reference,
                local_path=str(model.path),
                format=model.format,
                size_bytes=model.size_bytes,
                backend=best.recipe.backend,
                device=best.recipe.device,
                context_tokens=estimate.context_tokens,
                weights_bytes=estimate.weights_bytes,
                kv_cache_bytes=estimate.kv_cache_bytes,
                compute_bytes=estimate.compute_bytes,
                total_bytes=estimate.total_bytes,
                available_bytes=best.available_bytes,
                fits=estimate.total_bytes <= best.available_bytes,
                slots=best.recipe.slots,
                tuning=best.recipe.tuning,
                section=wanted.model if wanted.model in self._models.sections else "",
                idle_timeout_s=own.idle_timeout_s,
                pinned=own.pinned,
                max_tokens=own.max_tokens,
                sampling=sampling_of(own),
                system_prompt=own.system_prompt,
            )
        )

    async def download(self, request: web.Request) -> web.Response:
        """Have a model on this node; answers at once, the progress route follows it."""
        wanted = await read_body(request, wire.DownloadRequest)
        formats = await self._resolver.formats(wanted.backend)
        found = await self._provisioner.begin(await self._models.name(wanted.model_ref), formats)
        if isinstance(found, LocalModel):
            size = found.size_bytes
            there = wire.DownloadProgress(
                id="", reference=found.reference, state="done", done_bytes=size, total_bytes=size, file=found.path.name
            )
            return json_response(there)
        return json_response(found.progress(), status=202)

    async def downloads(self, request: web.Request) -> web.Response:
        """List the downloads that run or wait."""
        del request
        return json_response(wire.DownloadList(downloads=[d.progress() for d in self._downloads.running()]))

    async def cancel_download(self, request: web.Request) -> web.Response:
        """Have a download end."""
        wanted = await read_body(request, wire.DownloadCancel)
        return json_response(self._downloads.cancel(await self._models.name(wanted.model_ref)).progress())

    async def progress(self, request: web.Request) -> web.StreamResponse:
        """Stream a download's progress up to its end."""
        download = self._downloads.find(read_query(request, wire.DownloadQuery).id)
        if download is None:
            raise RouteNotFound("There is no such download", hint="ask for the model again")
        return await send_events(request, download.watch(), self._write_timeout_s)

    async def remove(self, request: web.Request) -> web.Response:
        """Forget a model, and remove its files if rbee fetched them."""
        name = await self._models.name(request.match_info["reference"])
        async with self._supervisor.removal(name):
            removed = await self._provisioner.remove(name)
        return json_response(
            wire.RemovedModel(reference=name, freed_bytes=removed.freed_bytes, kept_for=removed.kept_for)
        )


def _describe(row: CatalogRow, others: Sequence[CatalogRow], *, missing: bool) -> wire.ModelInfo:
    return wire.ModelInfo(
        reference=row.reference,
        provider=row.provider,
        local_path=row.local_path,
        size_bytes=row.size_bytes,
        downloaded_at_unix=row.downloaded_at_unix,
        format=row.format,
        status="missing" if missing else "ok",
        names=[other.reference for other in others],
    )
