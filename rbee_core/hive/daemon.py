"""The hive's composition root: builds every part, in order, and takes them down in the opposite one."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

from rbee_core import __version__, aio, home
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import InvalidRequest
from rbee_core.hive.api.hive import HiveRoutes
from rbee_core.hive.api.models import ModelRoutes
from rbee_core.hive.api.table import application
from rbee_core.hive.api.workers import WorkerRoutes
from rbee_core.hive.plugin_calls import PluginCalls
from rbee_core.hive.processes import logs
from rbee_core.hive.processes.guard import Guard
from rbee_core.hive.processes.launcher import Launcher
from rbee_core.hive.processes.start import Spare, environment_for
from rbee_core.hive.resolver import Resolver
from rbee_core.hive.serving import Serving
from rbee_core.hive.supervisor import Supervisor
from rbee_core.hive.worker_client import WorkerClient
from rbee_core.http.listen import bind, serving
from rbee_core.models import downloads
from rbee_core.models.catalog import Catalog
from rbee_core.models.provision import Provisioner
from rbee_core.models.references import References
from rbee_core.models.transfer_rules import TransferOptions
from rbee_core.settings import Settings

SOURCES_AT_ONCE = 8
"""So many models may be looked up at the same time: a hub that is slow to answer holds no other thread."""

log = logging.getLogger("rbee.hive")

Announce = Callable[[home.HiveNote], None]


async def run(
    settings: Settings, instance: str, *, ephemeral: bool, announce: Announce, spare: Spare | None = None
) -> list[str]:
    """Run a hive until it is told to stop; return the ids of the workers that were shut down.

    `announce` is called once it listens. An ephemeral hive belongs to the process at the other end of its stdin: it
    takes no lock, leaves no note, and stops when stdin ends. `instance` tags every process of this hive.
    Raises `HomeUnusable`, `HiveAlreadyRunning`,
    `AddressUnusable`, `CatalogUnusable`, and `InvalidRequest` for an address open to others without an API key.
    """
    _check_exposure(settings)
    place = home.Home(settings.home)
    place.sweep()
    logs.prune(settings.logs_dir, settings.log_files_kept)
    with contextlib.nullcontext() if ephemeral else place.exclusive():
        sock = bind(settings.host, settings.port)
        catalog = await aio.off_loop(Catalog, settings.catalog_path, settings.models_dir)
        log.info("rbee-hive %s, pid %d", __version__, os.getpid())
        log.info("Worker registry: in-memory (ephemeral)")
        log.info("Model catalog: SQLite (persistent) at %s", settings.catalog_path)
        try:
            return await _serve(settings, sock, catalog, instance, ephemeral=ephemeral, announce=announce, spare=spare)
        finally:
            await aio.off_loop(catalog.close)
            place.tidy()


async def _serve(
    settings: Settings,
    sock: socket.socket,
    catalog: Catalog,
    instance: str,
    *,
    ephemeral: bool,
    announce: Announce,
    spare: Spare | None,
) -> list[str]:
    stop_wanted, force = asyncio.Event(), asyncio.Event()
    plugins = await aio.off_loop(_load_plugins)
    calls = PluginCalls(plugins, settings.plugin_timeout_s)
    guard = Guard(environment_for(os.environ, instance), settings.logs_dir / "hive.log")
    host, port = sock.getsockname()[:2]
    options = TransferOptions(
        connect_timeout_s=settings.connect_timeout_s, stall_timeout_s=settings.download_stall_timeout_s
    )  # fmt: skip
    at_once = settings.downloads_at_once
    async with (
        WorkerClient(settings) as link,
        aio.Threads("model-source", SOURCES_AT_ONCE) as asking,
        downloads.running(catalog, settings.models_dir, options, at_once) as fetching,
    ):
        guard.start()
        launcher = Launcher(settings, guard, instance, f"http://{_callback_host(host)}:{port}", spare)
        references = References(plugins.sources(), settings.models)
        provisioner = Provisioner(catalog, references, fetching, settings.models_dir, asking)
        resolver = Resolver(settings, [*plugins.backends().values()], calls, provisioner)
        supervisor = Supervisor(settings, plugins, calls, resolver, launcher, link)
        answers = Serving(settings, supervisor, link)
        models = ModelRoutes(settings, supervisor.pool, catalog, provisioner, resolver, fetching)
        workers = WorkerRoutes(settings, supervisor, answers, plugins, models.canonical)
        hive = HiveRoutes(supervisor.pool, resolver, models.check, stop_wanted)
        app = application(settings, hive, workers, models)
        try:
            async with serving(app, sock), asyncio.TaskGroup() as tasks:
                keeper = tasks.create_task(guard.keep())
                me = home.identify(os.getpid())
                note = home.HiveNote(pid=me.pid, start_time=me.start_time, host=host, port=port, version=__version__)
                with _signals(stop_wanted, force), _noted(settings, note, ephemeral=ephemeral):
                    if ephemeral:
                        _stop_at_end_of_stdin(stop_wanted)
                    log.info("listening on %s:%d", host, port)
                    announce(note)
                    stopped = await supervisor.run(stop_wanted, force)
                    fetching.cancel_all()  # who follows one is told before the server closes
                keeper.cancel()
        finally:
            await launcher.close()
            await guard.release()
    log.info("shut down %d workers", len(stopped))
    return stopped


def _load_plugins() -> PluginHost:
    """Load all plugins and let them register: what is asked of them later goes through `PluginCalls`."""
    plugins = PluginHost(os.environ)
    plugins.reports()
    return plugins


def _check_exposure(settings: Settings) -> None:
    """Refuse to listen to other machines without a key. What cannot be judged counts as open."""
    try:
        local = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        local = False
    if not local and len(settings.api_key) < 32:
        raise InvalidRequest(
            f"Listening on {settings.host} would open this hive to other machines without an API key",
            hint="set RBEE_API_KEY to 32 characters or more, or listen on 127.0.0.1",
        )


def _callback_host(host: str) -> str:
    """Return where workers on this machine reach a hive that listens on `host`, as it stands in a URL."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # a comparison, not a bind
    return f"[{local}]" if ":" in local else local


@contextmanager
def _signals(stop_wanted: asyncio.Event, force: asyncio.Event) -> Generator[None]:
    """Stop politely at the first SIGTERM or SIGINT, at once at the second."""
    loop = asyncio.get_running_loop()

    def caught(number: signal.Signals) -> None:
        (force if stop_wanted.is_set() else stop_wanted).set()
        log.info("got %s%s", number.name, ", stopping now" if force.is_set() else "")

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, caught, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@contextmanager
def _noted(settings: Settings, note: home.HiveNote, *, ephemeral: bool) -> Generator[None]:
    """Let others find a persistent hive."""
    if ephemeral:
        yield
        return
    path = home.Home(settings.home).hive_note_path
    home.write_note(path, note)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _stop_at_end_of_stdin(stop_wanted: asyncio.Event) -> None:
    """Stop when the keeper that started us is gone."""
    loop, fd = asyncio.get_running_loop(), sys.stdin.fileno()

    def readable() -> None:
        if not os.read(fd, 4096):
            loop.remove_reader(fd)
            stop_wanted.set()

    loop.add_reader(fd, readable)
