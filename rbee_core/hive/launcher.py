"""Launching a worker: its command line, environment, log file, registration with the guardian, and its note."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rbee_core import wire
from rbee_core.backend import Backend
from rbee_core.domain.worker import Worker
from rbee_core.hive import home, logs
from rbee_core.hive.guard import Guard
from rbee_core.hive.process import Child, launch
from rbee_core.settings import Settings

SECRET_VARIABLES = frozenset({"RBEE_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})


class Launcher:
    """Starts workers for one hive. `hive_url` is where they call back."""

    def __init__(self, settings: Settings, guard: Guard, instance: str, hive_url: str) -> None:
        self._settings = settings
        self._guard = guard
        self._instance = instance
        self._hive_url = hive_url

    def log_path(self, worker: Worker) -> Path:
        """Where this worker logs."""
        return logs.worker_log(self._settings.logs_dir, worker.id)

    def launch(self, worker: Worker, backend: Backend) -> Child:
        """Start the worker's process and hand it its specification. Raises `OSError`."""
        device = next(d for d in backend.devices() if d.id == worker.wanted.device)
        environment = environment_for(os.environ, self._instance) | dict(backend.environment(device))
        # -P keeps the working directory off sys.path: nothing is ever imported from where the user happens to stand.
        argv = [sys.executable, "-P", "-m", "rbee_core.worker", "--worker-id", worker.id]
        child = launch(argv, environment=environment, log_path=self.log_path(worker))
        self._guard.add(child.pid)
        hive = home.identity(os.getpid())
        note = home.identity(child.pid) | {"instance": self._instance} | {f"hive_{k}": v for k, v in hive.items()}
        home.write_note(home.worker_note(self._settings, worker.id), note)
        child.write(wire.encode(self._specification(worker)) + b"\n")
        return child

    def forget(self, worker: Worker, child: Child) -> None:
        """Drop what was noted about a process that is gone."""
        self._guard.remove(child.pid)
        home.worker_note(self._settings, worker.id).unlink(missing_ok=True)

    def _specification(self, worker: Worker) -> wire.WorkerSpec:
        settings, wanted = self._settings, worker.wanted
        return wire.WorkerSpec(
            worker_id=worker.id,
            secret=worker.secret,
            hive_url=self._hive_url,
            hive_pid=os.getpid(),
            model_ref=wanted.model_ref,
            model_path=wanted.path,
            model_format=wanted.format,
            model_size_bytes=wanted.size_bytes,
            backend=wanted.backend,
            device=wanted.device,
            slots=settings.slots_per_worker,
            context_tokens=wanted.context_tokens,
            threads=settings.threads or None,
            body_limit_bytes=settings.body_limit_bytes,
            write_timeout_s=settings.write_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
        )


def environment_for(environ: Mapping[str, str], instance: str) -> dict[str, str]:
    """Return the environment of the hive's children: ours without secrets, tagged with the hive's instance.

    ggml would start a debugger on every failed assertion, which takes seconds and adds a process.
    """
    kept = {k: v for k, v in environ.items() if k not in SECRET_VARIABLES}
    return kept | {home.INSTANCE_VARIABLE: instance, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}
