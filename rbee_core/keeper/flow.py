"""The eight phases of one inference: what the keeper asks the hive, in which order, and when it asks again.

Speaks to a `HiveClient` that somebody else connects and closes. Everything it learns stands in `Outcome`, also when
a phase fails, so that the partial text and its place can be told.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from rbee_core import __version__, wire
from rbee_core.domain.needs import needed
from rbee_core.errors import (
    DeadlineExceeded,
    LoadingTimeout,
    RbeeError,
    RemoteError,
    StreamBroken,
    VersionMismatch,
    WorkerCrashed,
)
from rbee_core.keeper.fetching import provision
from rbee_core.keeper.interrupt import Interrupted, deadline_passed
from rbee_core.keeper.screen.output import CannotWrite, TextOut
from rbee_core.keeper.screen.phases import PhaseLog
from rbee_core.settings import Settings

if TYPE_CHECKING:
    from rbee_core.client import HiveClient

BUSY_DELAYS_S = (1.0, 2.0, 4.0)
CANCEL_PATIENCE_S = {"persistent": 4.0, "ephemeral": 0.3}  # what belongs to this command ends with it anyway
PROBE_PATIENCE_S = 2.0
POLL_FIRST_S, POLL_GROWTH, POLL_LONGEST_S = 0.01, 1.05, 0.25
# The hive's own LOADING_TIMEOUT knows more than the keeper's guard, so it is given time to arrive.
LOAD_SLACK_S = 10.0
READY = ("idle", "busy")


@dataclass(slots=True)
class Outcome:
    """What is known of an inference so far."""

    mode: str
    model: str
    worker: str = ""
    backend: str = ""
    device: str = ""
    log_path: str = ""
    context_tokens: int = 0
    tokens: int = 0
    streaming: bool = False
    logprobs: list[wire.Logprobs] = field(default_factory=list[wire.Logprobs])
    done: wire.StreamEvent | None = None

    @property
    def speed_tokens_per_s(self) -> float:
        """Tokens a second, as the worker measured."""
        done = self.done
        return round(done.total_tokens / done.duration_ms * 1000, 2) if done and done.duration_ms else 0.0

    def as_data(self) -> dict[str, Any]:
        """Return it for --json."""
        done = self.done or wire.StreamEvent()
        return {
            "tokens": self.tokens,
            "prompt_tokens": done.prompt_tokens,
            "cached_tokens": done.cached_tokens,
            "drafted_tokens": done.drafted_tokens,
            "accepted_tokens": done.accepted_tokens,
            "speed_tokens_per_s": self.speed_tokens_per_s,
            "duration_ms": done.duration_ms,
            "first_token_ms": done.first_token_ms,
            "prompt_tokens_per_s": done.prompt_tokens_per_s,
            "generation_tokens_per_s": done.generation_tokens_per_s,
            "finish_reason": done.finish_reason,
            **({"logprobs": self.logprobs} if self.logprobs else {}),
            "chat_template": done.chat_template,
            "worker": self.worker,
            "model": self.model,
            "backend": self.backend,
            "device": self.device,
            "context_tokens": self.context_tokens,
            "mode": self.mode,
        }


class Flow:
    """Runs the phases over `connect`'s client and notes what happens in `outcome`.

    The request's time counts from `started`, in seconds of the monotonic clock, or from now.
    """

    def __init__(
        self,
        spawn: wire.SpawnRequest,
        request: wire.InferenceRequest,
        phases: PhaseLog,
        out: TextOut,
        mode: str,
        *,
        queue: bool = True,
        started: float | None = None,
    ) -> None:
        self._spawn_request = msgspec.structs.replace(spawn, needs=sorted(needed(request)))
        self._request = request
        self._phases = phases
        self._out = out
        self._started = time.monotonic() if started is None else started
        self._timeout_s = request.timeout_s
        self._queue = queue
        self._place: tuple[str, int] | None = None
        self.outcome = Outcome(mode, spawn.model_ref)

    def run(self, connect: "Callable[[], HiveClient]", settings: Settings) -> None:
        """Run the phases that the mode calls for. Raises what a phase fails with."""
        if self.outcome.mode == "persistent":
            with self._phases.phase("1"):
                client = connect()
                found = self._find_worker(client)
            if found:
                self._execute(client)
                return
        else:
            with self._phases.phase("1"):
                self._phases.say("Skipped (ephemeral mode)")
        with self._phases.phase("2"):
            client = connect()
            self._check_health(client)
        self._provision(client)
        self._start_worker(client, settings)
        self._execute(client)

    def _find_worker(self, client: "HiveClient") -> bool:
        worker = client.find_worker(self._spawn_request)
        if worker is None:
            self._phases.say(f"No idle worker for {self._spawn_request.model_ref}")
            return False
        self._note(worker)
        self._phases.say(f"✓ Found idle worker: {self.outcome.worker}")
        return True

    def _check_health(self, client: "HiveClient") -> None:
        health = client.health()
        if not compatible(__version__, health.version):
            raise VersionMismatch(keeper=__version__, hive=health.version)
        self._phases.say(f"✓ Pool health: healthy (version {health.version})")

    def _provision(self, client: "HiveClient") -> None:
        """Bring the model here if it is not; a model that is here is a part of phases 3-5, as the spawn finds it."""
        wanted = self._spawn_request
        with self._phases.phase("3") as phase:
            request = wire.DownloadRequest(model_ref=wanted.model_ref, backend=wanted.backend)
            stays = self.outcome.mode == "persistent"
            found = provision(client, request, self._phases.screen, "[Phase 3] ", goes_on=stays)
            phase.detail = found.summary
        if not found.fetched:
            self._phases.forget(phase)

    def _start_worker(self, client: "HiveClient", settings: Settings) -> None:
        with self._phases.phase("3-5"):
            spawned = client.spawn(self._spawn_request)
            self.outcome.worker = spawned.worker_id
            self.outcome.backend, self.outcome.device = spawned.backend, spawned.device
            self._phases.say(self._spawn_words(spawned))
        with self._phases.phase("6"):
            worker = client.worker(spawned.worker_id)
            self._note(worker)
            self._phases.say("Worker registered in pool manager")
        with self._phases.phase("7"):
            self._phases.wait("Waiting for worker ready...")
            self._await_ready(client, worker, settings.load_stall_timeout_s + LOAD_SLACK_S)
            self._phases.over("✓ Worker ready!")

    def _spawn_words(self, spawned: wire.SpawnResponse) -> str:
        verb = "already running" if self.outcome.mode == "persistent" and spawned.state in READY else "spawned"
        several = self._spawn_request.device is None and spawned.devices > 1
        chosen = f"backend: {spawned.backend}, device: {spawned.device}" + (f" of {spawned.devices}" if several else "")
        return f"✓ Worker {verb}: {spawned.worker_id} (state: {spawned.state}), {chosen}"

    def _await_ready(self, client: "HiveClient", worker: wire.WorkerInfo, stall_s: float) -> None:
        delay_s, last, since = POLL_FIRST_S, worker.progress, time.monotonic()
        while worker.state not in READY:
            if worker.state != "loading":
                raise ended(worker)
            if worker.progress != last:
                last, since = worker.progress, time.monotonic()
            elif (waited_s := time.monotonic() - since) > stall_s:
                raise LoadingTimeout(worker_id=worker.worker_id, progress=last, waited_s=waited_s)
            self._phases.screen.tick(worker.progress)
            time.sleep(delay_s)
            delay_s = min(delay_s * POLL_GROWTH, POLL_LONGEST_S)
            worker = client.worker(worker.worker_id)
        self._note(worker)

    def _execute(self, client: "HiveClient") -> None:
        with self._phases.phase("8"):
            self._phases.say("Executing inference...")
            self._request.request_id = _new_request_id()
            if self._timeout_s is not None:
                spent_s = time.monotonic() - self._started
                self._request.timeout_s = max(0.001, self._timeout_s - spent_s)
            try:
                self._stream_when_free(client, BUSY_DELAYS_S)
            except StreamBroken as error:
                raise _explained(client, error) from error
            except RemoteError as error:
                if error.code == DeadlineExceeded.code and self._timeout_s is not None:
                    raise deadline_passed(self._timeout_s) from error  # the worker names what was left of it
                raise
            except (Interrupted, DeadlineExceeded, BrokenPipeError, CannotWrite):
                self._cancel(client)
                raise
            finally:
                self._finish_text()
            self._sum_up()

    def _stream_when_free(self, client: "HiveClient", delays_s: Sequence[float]) -> None:
        from rbee_core.client import jittered  # see the package's docstring

        for delay_s in delays_s:
            try:
                return self._stream(client)
            except RemoteError as error:
                if error.code != "ALL_SLOTS_BUSY" or self.outcome.streaming:
                    raise
                wait_s = jittered(delay_s)
                self._phases.say(f"{error.message}; trying again in {wait_s:.1f} s")
                time.sleep(wait_s)
        return self._stream(client)

    def _stream(self, client: "HiveClient") -> None:
        """Ask for the model, not for a worker: one that went away meanwhile is the hive's to replace."""
        outcome = self.outcome
        for group in client.infer_with_model(self._pool_request()):
            tokens = [event.token for event in group if event.token is not None]
            if not tokens and not group[-1].done:
                self._hear(client, group[-1])
                continue
            if not outcome.streaming:
                outcome.streaming = True
                self._phases.screen.end("")
                self._phases.screen.line("Tokens:")
            outcome.tokens += len(tokens)
            outcome.logprobs += [event.logprobs for event in group if event.logprobs is not None]
            self._out.write("".join(tokens))
            outcome.done = group[-1] if group[-1].done else None

    def _pool_request(self) -> wire.PoolInference:
        wanted, fields = self._spawn_request, wire.InferenceRequest.__struct_fields__
        return wire.PoolInference(
            **{name: getattr(self._request, name) for name in fields},
            model_ref=wanted.model_ref,
            backend=wanted.backend,
            device=wanted.device,
            context_tokens=wanted.context_tokens,
            slots=wanted.slots,
            tuning=wanted.tuning,
            queue=self._queue,
        )

    def _hear(self, client: "HiveClient", event: wire.StreamEvent) -> None:
        """Show what the request waits for, and take note of another worker than the one that was seen."""
        if (waiting := event.waiting) is not None:
            place = (waiting.for_what, waiting.position)
            if place != self._place:
                self._place = place
                loaded = f" ({waiting.progress:.0%} loaded)" if waiting.progress else ""
                self._phases.say(f"Waiting for {waiting.for_what}{loaded}, place {waiting.position}")
        elif event.prompt is not None:
            self._phases.fraction(f"Reading the prompt ({event.prompt.total} tokens):", event.prompt.share)
        elif event.worker_id and event.worker_id != self.outcome.worker:
            self._note(client.worker(event.worker_id))
            self._phases.say(f"Worker {self.outcome.worker} answers")

    def _cancel(self, client: "HiveClient") -> None:
        with contextlib.suppress(RbeeError):
            client.cancel_request(self._request.request_id or "", timeout_s=CANCEL_PATIENCE_S[self.outcome.mode])

    def _finish_text(self) -> None:
        with contextlib.suppress(BrokenPipeError, CannotWrite):
            self._out.finish()

    def _sum_up(self) -> None:
        done = self.outcome.done or wire.StreamEvent()
        self.outcome.tokens = done.total_tokens
        self._phases.entered[-1].detail = f"{done.total_tokens} tokens, {done.finish_reason}"
        screen = self._phases.screen
        screen.line("\n✓ Inference complete!")
        screen.line(f"Total tokens: {done.total_tokens}")
        screen.line(f"Duration: {done.duration_ms} ms")
        screen.line(f"Speed: {self.outcome.speed_tokens_per_s:.2f} tokens/sec")
        if done.prompt_tokens:
            through = ", through the model's chat template" if done.chat_template else ""
            cached = f", {done.cached_tokens} of them cached" if done.cached_tokens else ""
            screen.line(f"Prompt: {done.prompt_tokens} tokens{cached}{through}{_told(done.prompt_tokens_per_s)}")
        if done.generation_tokens_per_s:
            guessed = f", {done.accepted_tokens} of them guessed" if done.accepted_tokens else ""
            screen.line(f"Generation: {done.total_tokens} tokens{guessed}{_told(done.generation_tokens_per_s)}")
        if self.outcome.context_tokens:
            screen.line(f"Context: {self.outcome.context_tokens} tokens")

    def _note(self, worker: wire.WorkerInfo) -> None:
        self.outcome.worker, self.outcome.log_path = worker.worker_id, worker.log_path
        self.outcome.model = worker.model_ref
        self.outcome.backend, self.outcome.device = worker.backend, worker.device
        self.outcome.context_tokens = worker.context_tokens


def _told(tokens_per_s: float) -> str:
    return f", {tokens_per_s:.2f} tokens/sec" if tokens_per_s else ""


def compatible(ours: str, theirs: str) -> bool:
    """Whether two versions understand each other: the same major and minor number."""
    return ours.split(".")[:2] == theirs.split(".")[:2]


def ended(worker: wire.WorkerInfo) -> RbeeError:
    """Return why a worker that was awaited ended."""
    if worker.error is None:
        return WorkerCrashed(worker_id=worker.worker_id, exit=worker.reason or worker.state)
    return RemoteError.of(worker.error)


def _explained(client: "HiveClient", error: StreamBroken) -> StreamBroken:
    """Say so if a stream broke because the hive itself is gone."""
    try:
        client.health(attempts=1, timeout_s=PROBE_PATIENCE_S)
    except RbeeError:
        return StreamBroken(tokens=error.details["tokens"], why="the hive is gone")
    return error


def _new_request_id() -> str:
    return f"req-{os.urandom(8).hex()}"
