"""What a worker does, in order: listen, call back, load, serve, stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp

from rbee_core import wire
from rbee_core.backend import Backend, Device, Engine, LoadOptions, LocalModel, OnDisk, Progress
from rbee_core.backend.choice import ask, named, ranked
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import DeviceGone, RbeeError, shorten
from rbee_core.http.bind import bind
from rbee_core.http.listen import serving
from rbee_core.start import settled
from rbee_core.worker.engine import EngineHost
from rbee_core.worker.server import WorkerServer

GRACE_S = 2.0

log = logging.getLogger("rbee.worker")


def prepare() -> PluginHost:
    """Load the plugins, and import the engine that will most likely be wanted, while nothing is wanted yet.

    That is the best backend that can run here. With more than one device its environment is not known yet, and an
    engine may read that when it is imported: then nothing is imported.
    """
    plugins = PluginHost(os.environ)
    best = next((c for c in map(ask, ranked(plugins.backends().values())) if c.usable), None)
    if best is not None and len(best.devices) == 1:
        try:
            os.environ.update(best.backend.environment(best.devices[0]))
            best.backend.prepare()
        except Exception:
            log.exception("backend %s could not be prepared", best.backend.name)
    return plugins


def title(spec: wire.WorkerSpec) -> str:
    """Return what `ps` shows of this worker: model, device and id. Everybody reads it, so no folder is named."""
    _, _, model = spec.reference.rpartition("/" if "/" in spec.reference else ":")
    return f"llm-worker-rbee {shorten(model.removesuffix('.gguf'), 60)} {spec.device} {spec.worker_id}"


async def run(spec: wire.WorkerSpec, plugins: PluginHost | None = None) -> None:
    """Run the worker until it is told to stop."""
    stop_wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop_wanted.set)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the hive's to handle
    host = EngineHost(loader(spec, plugins), spec.slots)
    sock = bind("127.0.0.1", 0)
    async with serving(WorkerServer(spec, host, stop_wanted).app(), sock) as port, asyncio.TaskGroup() as tasks:
        load = tasks.create_task(host.load())
        await _call_back(spec, f"http://127.0.0.1:{port}")
        await stop_wanted.wait()
        host.close()
        load.cancel()
        await host.idle(GRACE_S)
    host.release()


def loader(spec: wire.WorkerSpec, plugins: PluginHost | None) -> Callable[[Progress], Engine]:
    """Return the function that loads the model, to be called in the engine thread."""

    def load(progress: Progress) -> Engine:
        backend = named((plugins or PluginHost(os.environ)).backends().values(), spec.backend)[0]
        device = _there(backend, spec.device)
        model = LocalModel(spec.reference, Path(spec.path), spec.format, spec.size_bytes)
        options = LoadOptions(spec.context_tokens, spec.slots, spec.threads, spec.tuning, _on_disk(spec))
        log.info("%s: loading %s (%s, %d bytes)", spec.worker_id, model.reference, model.path, model.size_bytes)
        log.info(
            "%s: with %s on %s (%s), %s",
            spec.worker_id,
            backend.name,
            device.id,
            device.name,
            shorten(str(options), 1000),
        )
        engine = backend.load(model, device, options, progress)
        settled()
        return engine

    return load


def _on_disk(spec: wire.WorkerSpec) -> OnDisk | None:
    said = spec.on_disk
    return said and OnDisk(Path(said.folder), said.limit_bytes, said.within_s, said.model)


def _there(backend: Backend, wanted: str) -> Device:
    """Return the device as it is now. Raises `DeviceGone`: a driver may have lost it since the hive chose it."""
    devices = backend.devices()
    device = next((d for d in devices if d.id == wanted), None)
    if device is None:
        raise DeviceGone(backend=backend.name, device=wanted, available=[d.id for d in devices])
    return device


async def _call_back(spec: wire.WorkerSpec, own_url: str) -> None:
    """Tell the hive where this worker listens. A hive that does not take it is gone or does not want us."""
    ready = wire.WorkerReady(
        worker_id=spec.worker_id, url=own_url, model_ref=spec.reference, backend=spec.backend, device=spec.device
    )
    headers = {"Authorization": f"Bearer {spec.secret}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=spec.connect_timeout_s)
    url = f"{spec.hive_url}/v1/workers/ready"
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.post(url, data=wire.encode(ready), headers=headers) as answer,
    ):
        if answer.status != 200:
            raise RbeeError(f"The hive refused the ready callback with {answer.status}")
