"""Launching a worker: its process, registration with the guardian, its note, and its specification."""

import contextlib
import hashlib
import logging
import os
import threading

import psutil

from rbee_core import aio, home, wire
from rbee_core.domain.worker import Recipe, Worker, WorkerId
from rbee_core.hive.processes import start
from rbee_core.hive.processes.child import Child
from rbee_core.hive.processes.guard import Guard
from rbee_core.hive.terms import WorkerTerms

log = logging.getLogger(__name__)


class Launcher:
    """Starts workers for one hive. `hive_url` is where they call back; `ready` is a process started in advance.

    `terms` may be replaced; they count for workers that are launched from then on.
    """

    def __init__(
        self,
        place: home.Home,
        terms: WorkerTerms,
        guard: Guard,
        instance: str,
        hive_url: str,
        ready: start.Spare | None,
    ) -> None:
        self._home = place
        self.terms = terms
        self._guard = guard
        self._instance = instance
        self._hive_url = hive_url
        self._spare = ready
        self._spare_child = self._adopt(Child(ready.process)) if ready else None

    def next_id(self) -> WorkerId:
        """Return the id for the next worker."""
        return WorkerId(self._spare.worker_id if self._spare else start.new_worker_id())

    def launch(self, worker: Worker) -> Child:
        """Start the worker's process and hand it its specification. Asks no plugin: its recipe has all that it takes.

        Raises `OSError`; then there is no process. One that dies before it has its specification is reported by its
        exit, as any other is.
        """
        # The kernel ties the parent-death signal to the launching thread, so it must be the one that lives longest.
        assert threading.current_thread() is threading.main_thread()
        specification = self._specification(worker)
        child = self._take_spare(worker.id)
        if child is None:
            process = start.start_worker(worker.id, instance=self._instance, home=self._home)
            child = self._adopt(Child(process))
        with contextlib.suppress(BrokenPipeError):
            child.write(wire.encode(specification) + b"\n")
        return child

    def _take_spare(self, worker_id: str) -> Child | None:
        if self._spare is None or self._spare.worker_id != worker_id:
            return None
        child, self._spare, self._spare_child = self._spare_child, None, None
        return child

    def _adopt(self, child: Child) -> Child:
        """Make sure that the process does not outlive this hive, before it gets anything to do."""
        self._guard.add(child.pid)
        return child

    async def follow(self, worker_id: str, child: Child) -> None:
        """Wait for the end of a process that was launched; it is noted for as long as it lives."""
        await aio.off_loop(self._note, worker_id, child.pid)
        await child.wait()
        self._guard.remove(child.pid)
        with contextlib.suppress(OSError):  # a disk that cannot be written; the next hive sweeps
            await aio.off_loop(self._home.worker_note_path(worker_id).unlink, missing_ok=True)

    def _note(self, worker_id: str, pid: int) -> None:
        """Let a later hive find the process, should this one and its guardian be killed."""
        try:
            note = home.WorkerNote.of(home.identify(pid), home.identify(os.getpid()), self._instance)
            home.write_note(self._home.worker_note_path(worker_id), note)
        except psutil.NoSuchProcess:
            pass
        except OSError as error:  # a full disk; guardian and kernel do without the note
            log.warning("cannot note the process of %s: %s", worker_id, error.strerror)

    async def close(self) -> None:
        """End the spare process, if nobody took it."""
        if self._spare and self._spare_child:
            worker_id, child = self._spare.worker_id, self._spare_child
            self._spare = self._spare_child = None
            await child.end(ask_s=0.0, terminate_s=0.0)
            self._guard.remove(child.pid)
            await aio.off_loop(self._home.worker_log(worker_id).unlink, missing_ok=True)

    def _specification(self, worker: Worker) -> wire.WorkerSpec:
        terms, recipe = self.terms, worker.recipe
        return wire.WorkerSpec(
            worker_id=worker.id,
            secret=str(worker.secret),
            hive_url=self._hive_url,
            hive_pid=os.getpid(),
            reference=recipe.reference,
            path=recipe.path,
            format=recipe.format,
            size_bytes=recipe.size_bytes,
            backend=recipe.backend,
            device=recipe.device,
            environment=dict(recipe.environment),
            slots=recipe.slots,
            context_tokens=recipe.context_tokens,
            threads=terms.threads,
            tuning=recipe.tuning,
            on_disk=self._on_disk(recipe),
            body_limit_bytes=terms.body_limit_bytes,
            write_timeout_s=terms.write_timeout_s,
            connect_timeout_s=terms.connect_timeout_s,
        )

    def _on_disk(self, recipe: Recipe) -> wire.OnDisk | None:
        """Return where a worker may leave prompts; nowhere if it is not known which version of a model it has."""
        terms = self.terms
        if not terms.on_disk_bytes or not recipe.identity:
            return None
        version = hashlib.sha256(repr((recipe.place, recipe.identity)).encode(errors="replace")).hexdigest()
        return wire.OnDisk(
            folder=str(self._home.prompts_dir),
            limit_bytes=terms.on_disk_bytes,
            within_s=terms.on_disk_s,
            model=version[:32],
        )
