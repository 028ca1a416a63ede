"""The hive's composition root: builds every part, in order, and takes them down in the opposite one."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

from rbee_core import __version__, aio
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import AddressUnusable, InvalidRequest
from rbee_core.hive.api.hive import HiveRoutes
from rbee_core.hive.api.inference import InferenceRoutes
from rbee_core.hive.api.metrics import MetricsRoutes
from rbee_core.hive.api.models import ModelRoutes
from rbee_core.hive.api.table import OWN, application
from rbee_core.hive.api.workers import WorkerRoutes, describe
from rbee_core.hive.config.models import Models
from rbee_core.hive.config.reload import Reload, stays
from rbee_core.hive.config.sections import read_sections
from rbee_core.hive.journal import Journal, log_change, telling_plugins
from rbee_core.hive.metrics.numbers import Numbers
from rbee_core.hive.plugin_calls import PluginCalls
from rbee_core.hive.processes import logs
from rbee_core.hive.processes.guard import Guard
from rbee_core.hive.processes.launcher import Launcher
from rbee_core.hive.processes.orders import Orders, Unwanted, lifeline, signals
from rbee_core.hive.processes.start import Spare, environment_for, new_instance, start_spare
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.serving import Serving
from rbee_core.hive.supervisor import Supervisor
from rbee_core.hive.terms import Care, Door, LoadDefaults, Tenure, Waits, WorkerTerms
from rbee_core.hive.worker_client import WorkerClient
from rbee_core.home import HiveNote, Home, identify, write_note
from rbee_core.http.bind import authority, bind, is_loopback, reached
from rbee_core.http.listen import serving
from rbee_core.models import downloads
from rbee_core.models.catalog import Catalog
from rbee_core.models.downloads import Downloads
from rbee_core.models.provision import Provisioner
from rbee_core.models.references import References
from rbee_core.models.transfer_rules import TransferOptions
from rbee_core.settings import Settings

SHORTEST_KEY = 32

log = logging.getLogger("rbee.hive")


class Hive:
    """A hive that listens at `note` and obeys `orders`. Its methods belong to the event loop's thread."""

    def __init__(self, note: HiveNote, orders: Orders) -> None:
        self.note = note
        self.orders = orders
        self._ended = asyncio.Event()
        self._stopped: list[str] = []

    async def ended(self) -> list[str]:
        """Wait until it has stopped, as it was told to; return the ids of the workers that were shut down."""
        await self._ended.wait()
        return self._stopped

    async def supervise(self, supervisor: Supervisor) -> None:
        """Run the pool until the hive is told to stop and no worker is left."""
        try:
            self._stopped = await supervisor.run(self.orders.stop_wanted, self.orders.force)
        finally:
            self._ended.set()


async def run(
    settings: Settings,
    tenure: Tenure,
    announce: Callable[[HiveNote], None],
    spare: Spare | None = None,
    told: Callable[[], None] = lambda: None,
) -> list[str]:
    """Run a hive as a program until it is told to stop; return the ids of the workers that were shut down.

    `announce` is called once it listens. SIGTERM and SIGINT stop it, a second one at once; `signals` says what
    SIGHUP does. Raises what
    `open_hive` does. `told` is called when it is first told to stop.
    """
    orders = Orders(told)
    with signals(orders):  # before anybody can find it: a signal must not end it in any other way
        try:
            async with open_hive(settings, tenure, spare, orders) as hive:
                announce(hive.note)
                stopped = await hive.ended()
        except Unwanted:
            log.info("told to stop while it started")
            return []
    log.info("shut down %d workers", len(stopped))
    return stopped


@asynccontextmanager
async def open_hive(
    settings: Settings, tenure: Tenure, spare: Spare | None = None, orders: Orders | None = None
) -> AsyncGenerator[Hive]:
    """Have a hive in this process for the block, whose end stops it; an error or a cancellation stops it at once.

    Enter it on the main thread, because workers die with the thread that started them. `spare` is a worker process that
    was started in advance. Raises `HomeUnusable`, `HiveAlreadyRunning`, `AddressUnusable`, `CatalogUnusable`,
    `InvalidRequest` for an address open to others without an API key, and `Unwanted` if it is to stop before that.
    """
    if tenure.private_port:
        settings = dataclasses.replace(settings, host="127.0.0.1", port=0)
    settings = dataclasses.replace(settings, slots_per_worker=settings.slots_per_worker or tenure.slots)
    _check_exposure(settings)
    orders = orders or Orders()
    failure: Exception | None = None
    async with contextlib.AsyncExitStack() as stack:
        if tenure.lifeline:  # from the first moment: whoever started it may be gone before it is built
            stack.enter_context(lifeline(orders))
        try:
            async with orders.heeded():
                hive = await _built(stack, settings, tenure, spare, orders)
            yield hive
        except Exception as error:  # noqa: BLE001  # raised below: task groups on the way would wrap it
            orders.stop_now()
            failure = error
    if failure is not None:
        raise failure


async def _built(
    stack: contextlib.AsyncExitStack, settings: Settings, tenure: Tenure, spare: Spare | None, orders: Orders
) -> Hive:
    """Build a hive and let it run; `stack` takes it down."""
    place = await _move_in(stack, settings, tenure)
    me = await aio.off_loop(identify, os.getpid())
    if tenure.lock and tenure.note:
        starting = HiveNote.of(me, (settings.host, 0), __version__)
        await stack.enter_async_context(_noted(place.starting_note_path, starting))
    sock = stack.enter_context(await aio.off_loop(bind, settings.host, settings.port))
    note = HiveNote.of(me, sock.getsockname(), __version__)
    hive = Hive(note, orders)
    spare = spare or (start_spare(place) if tenure.spare else None)
    guard, launcher = await _processes(stack, settings, place, note, spare)
    await _build(stack, settings, tenure, place, hive, guard, launcher, sock)
    if tenure.note:
        await stack.enter_async_context(_noted(place.hive_note_path, note))
        await aio.off_loop(place.starting_note_path.unlink, missing_ok=True)
    await stack.enter_async_context(_stopped(hive))
    log.info("listening on %s:%d", note.host, note.port)
    return hive


async def _move_in(stack: contextlib.AsyncExitStack, settings: Settings, tenure: Tenure) -> Home:
    """Clean up after dead hives, and hold RBEE_HOME if those are the terms."""
    place = Home(settings.home)
    await aio.off_loop(place.prepare)
    await aio.off_loop(place.sweep)
    await aio.off_loop(logs.prune, place, settings.log_files_kept)
    if not settings.prompt_cache_on_disk_bytes:
        await aio.off_loop(place.forget_prompts)
    if tenure.lock:
        await aio.off_loop(stack.enter_context, place.exclusive())
    stack.push_async_callback(aio.off_loop, place.tidy)
    log.info("rbee-hive %s, pid %d", __version__, os.getpid())
    return place


async def _processes(
    stack: contextlib.AsyncExitStack, settings: Settings, place: Home, note: HiveNote, spare: Spare | None
) -> tuple[Guard, Launcher]:
    """Be ready to start workers. Taken down in this order: the spare, the guardian, whose pipe then guards nobody."""
    instance = spare.instance if spare else new_instance()
    guard = Guard(environment_for(os.environ, instance), place.hive_log)
    guard.start()
    stack.push_async_callback(guard.release)
    launcher = Launcher(
        place, WorkerTerms.of(settings), guard, instance, f"http://{authority(reached(note.host), note.port)}", spare
    )
    stack.push_async_callback(launcher.close)
    return guard, launcher


async def _build(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    tenure: Tenure,
    place: Home,
    hive: Hive,
    guard: Guard,
    launcher: Launcher,
    sock: socket.socket,
) -> None:
    """Build what serves, from the catalog up to the routes, and serve once the pool runs."""
    catalog = await aio.off_loop(Catalog, place.catalog_path, place.models_dir)
    stack.push_async_callback(aio.off_loop, catalog.close)
    log.info("Worker registry: in-memory (ephemeral)")
    log.info("Model catalog: SQLite (persistent) at %s", place.catalog_path)
    plugins = await aio.off_loop(_load_plugins)
    calls = PluginCalls(plugins, settings.plugin_timeout_s)
    waits = Waits.of(settings)
    link = await stack.enter_async_context(WorkerClient(waits))
    fetching = await stack.enter_async_context(_fetching(settings, place, catalog))
    references = References(plugins.sources(), settings.models, settings.plugin_timeout_s)
    provisioner = Provisioner(catalog, references, fetching, place.models_dir)
    sections = await aio.off_loop(read_sections, settings)
    known = Models(references, sections)
    resolver = Resolver(LoadDefaults.of(settings), [*plugins.backends().values()], calls, provisioner)
    journal = Journal(partial(describe, home=place))
    journal.listen(log_change)
    numbers = Numbers()
    journal.listen(numbers.changed)
    care = Care.of(settings, stays(sections))
    supervisor = Supervisor(care, place, plugins, calls, resolver, launcher, link, journal)
    reload = Reload(settings, known, resolver, launcher, supervisor, journal)
    answers = Serving(waits, supervisor, link, resolver.check, numbers.ended)
    models = ModelRoutes(settings.write_timeout_s, supervisor, catalog, known, provisioner, resolver, fetching)
    workers = WorkerRoutes(place, supervisor, plugins, known, resolver)
    inference = InferenceRoutes(settings.write_timeout_s, settings.keep_alive_s, supervisor, answers, known)
    routes = HiveRoutes(
        settings.write_timeout_s, place, supervisor.pool, journal, resolver, models.check, hive.orders.stop, reload
    )  # fmt: skip
    door = Door.of(settings)
    rows, owners = [*OWN], [routes, workers, inference, models, MetricsRoutes(numbers, supervisor.pool, fetching)]
    if tenure.dialects:
        from rbee_core.hive.dialects.models import ServedModels
        from rbee_core.hive.dialects.table import DIALECTS, speakers

        rows += DIALECTS
        owners += speakers(
            ServedModels(supervisor.pool, catalog, known, resolver, provisioner),
            answers,
            supervisor,
            write_timeout_s=settings.write_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            idle_timeout_s=settings.idle_timeout_s,
        )
    app = application(rows, door, owners, journal.story, numbers)
    await stack.enter_async_context(_running(hive, supervisor, guard, reload))
    await stack.enter_async_context(serving(app, sock, door.limits, await _besides(settings, tenure)))
    # Who follows something is told of its end before the server closes.
    stack.callback(fetching.cancel_all)
    await stack.enter_async_context(telling_plugins(journal, calls.tell))


def _fetching(settings: Settings, place: Home, catalog: Catalog) -> AbstractAsyncContextManager[Downloads]:
    """Return what fetches models, until the block ends."""
    options = TransferOptions(
        connect_timeout_s=settings.connect_timeout_s, stall_timeout_s=settings.download_stall_timeout_s
    )
    return downloads.running(catalog, place.models_dir, options, settings.downloads_at_once)


async def _besides(settings: Settings, tenure: Tenure) -> list[socket.socket]:
    """Listen where clients of Ollama look, if that is wanted; a hive serves as well without."""
    port = settings.ollama_port
    if not (port and tenure.dialects):
        return []
    try:
        sock = await aio.off_loop(bind, "127.0.0.1", port)
    except AddressUnusable as error:
        log.warning("not listening for clients of Ollama: %s", error)
        return []
    log.info("listening on 127.0.0.1:%d too, for clients of Ollama", port)
    return [sock]


@asynccontextmanager
async def _running(hive: Hive, supervisor: Supervisor, guard: Guard, reload: Reload) -> AsyncGenerator[None]:
    """Run the pool and mind guardian and orders for the block; its end waits for the end of all workers."""
    async with asyncio.TaskGroup() as tasks:
        guarding = tasks.create_task(guard.keep())
        reloading = tasks.create_task(hive.orders.reloading(reload))
        supervising = tasks.create_task(hive.supervise(supervisor))
        await aio.sleep(0)  # both have begun
        try:
            yield
        finally:
            hive.orders.stop()
            await asyncio.wait([supervising])
            guarding.cancel()
            reloading.cancel()


@asynccontextmanager
async def _stopped(hive: Hive) -> AsyncGenerator[None]:
    """Stop the workers at the end of the block, while the hive still answers: streams end with a word."""
    try:
        yield
    except asyncio.CancelledError:
        hive.orders.stop_now()
        raise
    finally:
        hive.orders.stop()
        await hive.ended()


def _load_plugins() -> PluginHost:
    """Load all plugins and let them register: what is asked of them later goes through `PluginCalls`."""
    plugins = PluginHost(os.environ)
    plugins.reports()
    return plugins


def _check_exposure(settings: Settings) -> None:
    """Refuse to listen to other machines without a key."""
    if not is_loopback(settings.host) and len(settings.api_key) < SHORTEST_KEY:
        raise InvalidRequest(
            f"Listening on {settings.host} would open this hive to other machines without an API key",
            hint=f"set RBEE_API_KEY to {SHORTEST_KEY} characters or more, or listen on 127.0.0.1",
        )


@asynccontextmanager
async def _noted(path: Path, note: HiveNote) -> AsyncGenerator[None]:
    """Let others find this hive."""
    try:
        await aio.to_the_end(write_note, path, note)
        yield
    finally:
        await aio.off_loop(path.unlink, missing_ok=True)
