"""Errors of what should have worked: a process, a file, the network, the machine's resources."""

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rbee_core.errors.base import RbeeError, origin, shorten


class WorkerCrashed(RbeeError):
    """Raised when a worker process ended by itself; carries its exit and last log lines."""

    code = "WORKER_CRASHED"
    http_status = 502

    def __init__(self, *, worker_id: str, exit: str, log_tail: Sequence[str] = ()) -> None:  # noqa: A002
        super().__init__(
            f"Worker {worker_id} crashed ({exit})",
            hint=f"`rbee logs {worker_id}` shows its log",
            worker_id=worker_id,
            exit=exit,
            log_tail=list(log_tail),
        )


class ModelHeldBack(RbeeError):
    """Raised when a model's workers failed so often in a row that none is started for a while; says the last reason."""

    code = "MODEL_HELD_BACK"
    http_status = 503

    def __init__(self, *, reference: str, failures: int, last: str, worker_id: str, again_in_s: float) -> None:
        seconds = math.ceil(again_in_s)
        often = "a worker for it has just failed" if failures == 1 else f"{failures} workers for it failed in a row"
        super().__init__(
            f"Model {shorten(reference)} is not started for {seconds} s: {often}, the last one so: {shorten(last)}",
            hint=f"`rbee logs {worker_id}` shows its log; `rbee workers retry` tries again now, other files do at once",
            reference=shorten(reference),
            failures=failures,
            worker_id=worker_id,
            retry_after_s=seconds,
        )


class DownloadFailed(RbeeError):
    """Raised when a transfer failed after all its attempts."""

    code = "DOWNLOAD_FAILED"
    http_status = 502


class TooManyDownloads(RbeeError):
    """Raised when as many downloads wait their turn as may."""

    code = "TOO_MANY_DOWNLOADS"
    http_status = 503
    exit_code = 75

    def __init__(self, *, waiting: int) -> None:
        super().__init__(
            f"{waiting} downloads wait their turn on this node, and no more may",
            hint="try again later, or raise downloads_at_once",
            waiting=waiting,
        )


class ChecksumMismatch(RbeeError):
    """Raised when a file arrived twice with other bytes than the hub announced."""

    code = "CHECKSUM_MISMATCH"
    http_status = 502


class BackendNotAvailable(RbeeError):
    """Raised when a backend was asked for by name and cannot run here, or turns out in a worker not to be able to.

    `available` are the backends that can; without it, who raises this does not know of others.
    """

    code = "BACKEND_NOT_AVAILABLE"
    http_status = 503

    def __init__(self, *, backend: str, why: str, available: Iterable[str] | None = None, hint: str = "") -> None:
        names = sorted(available or ())
        listed = f"available here: {', '.join(names)}" if names else "no backend is available here"
        hints = [hint, "" if available is None else listed]
        super().__init__(
            f"Backend {backend} is not available: {why}",
            hint="; ".join(filter(None, hints)),
            backend=backend,
            available=names,
        )


class AllSlotsBusy(RbeeError):
    """Raised when all slots are taken and the caller does not queue, or the queue is full: `waiting` are in it."""

    code = "ALL_SLOTS_BUSY"
    http_status = 503
    exit_code = 75

    def __init__(self, *, slots: int, busy: int, waiting: int = 0) -> None:
        taken = f"All slots are busy ({busy} of {slots})" if slots else "No worker has a slot yet"
        queue = "1 request waits" if waiting == 1 else f"{waiting} requests wait"
        super().__init__(
            f"{taken}, and {queue} already" if waiting else taken,
            hint="try again in a moment",
            slots=slots,
            busy=busy,
            waiting=waiting,
        )


class Overloaded(RbeeError):
    """Raised when the program has as many connections as it serves, or the system no descriptor or memory left."""

    code = "OVERLOADED"
    http_status = 503
    exit_code = 75

    @classmethod
    def by_system(cls, error: BaseException) -> "Overloaded":
        """Return what a shortage of the system's means for whoever asked."""
        why = shorten(getattr(error, "strerror", "") or str(error))
        hint = "try again when less runs here, or raise the limits that `ulimit -a` shows"
        return cls(f"The system refused: {why}", hint=hint)


class ShuttingDown(RbeeError):
    """Raised when hive or worker takes no new work because it is stopping."""

    code = "SHUTTING_DOWN"
    http_status = 503

    def __init__(self, *, who: str) -> None:
        super().__init__(f"The {who} is shutting down", hint="start it again, then retry")


class WorkerNotReady(RbeeError):
    """Raised when a worker is asked to generate before its model is loaded, or after it was told to stop."""

    code = "WORKER_NOT_READY"
    http_status = 503

    def __init__(self, *, worker_id: str, state: str) -> None:
        super().__init__(
            f"Worker {worker_id} is {state}", hint="wait until it is idle", worker_id=worker_id, state=state
        )


class PluginFailed(RbeeError):
    """Raised when a plugin's code raised something that is no error of ours."""

    code = "PLUGIN_FAILED"
    http_status = 502

    def __init__(self, *, what: str, error: BaseException) -> None:
        place = origin(error).rpartition("/")[2]  # the folders before it are nobody else's business
        super().__init__(
            f"The {what} failed with {type(error).__name__}: {shorten(str(error))}" + (f" ({place})" if place else ""),
            hint="this is for the plugin's author; `rbee plugins` names the package",
        )


class PluginTimeout(RbeeError):
    """Raised when a plugin's code, or the driver it asks, did not answer in time."""

    code = "PLUGIN_TIMEOUT"
    http_status = 504

    def __init__(self, *, plugin: str, what: str, waited_s: float) -> None:
        super().__init__(
            f"Backend {plugin} did not answer within {waited_s:g} s ({what})",
            hint="its driver may hang; use another backend meanwhile, or raise plugin_timeout_s",
            plugin=plugin,
            what=what,
            waited_s=waited_s,
        )


class DeviceGone(RbeeError):
    """Raised when the device that was chosen for a model is not there any more when it is to be loaded."""

    code = "DEVICE_GONE"
    http_status = 503

    def __init__(self, *, backend: str, device: str, available: Iterable[str]) -> None:
        names = sorted(available)
        super().__init__(
            f"Device {device} of backend {backend} is gone since it was chosen",
            hint=f"there now: {', '.join(names)}; ask again" if names else "there is no other; check its driver",
            backend=backend,
            device=device,
            available=names,
        )


class CatalogUnusable(RbeeError):
    """Raised when models.db is locked for too long, or was written by a newer rbee."""

    code = "CATALOG_UNUSABLE"
    http_status = 503


class LoadingTimeout(RbeeError):
    """Raised when a worker made no progress towards ready for too long."""

    code = "LOADING_TIMEOUT"
    http_status = 504

    def __init__(self, *, worker_id: str, progress: float, waited_s: float) -> None:
        super().__init__(
            f"Worker {worker_id} stopped making progress at {progress:.0%} for {waited_s:.0f} s",
            hint="a slow disk needs a larger load_stall_timeout_s",
            worker_id=worker_id,
            progress=progress,
        )


class _Insufficient(RbeeError):
    http_status = 507
    what: ClassVar[str]
    advice: ClassVar[str]

    def __init__(self, *, need_bytes: int, have_bytes: int, devices: int = 1) -> None:
        need_mb, have_mb = -(-need_bytes // 1_000_000), have_bytes // 1_000_000
        where = f" on the roomiest of {devices} devices" if devices > 1 else ""
        super().__init__(
            f"Insufficient {self.what}: need {need_mb} MB, have {have_mb} MB{where}",
            hint=self.advice,
            need_bytes=need_bytes,
            have_bytes=have_bytes,
        )


class InsufficientRam(_Insufficient):
    """Raised before anything starts when host memory cannot hold the model."""

    code = "INSUFFICIENT_RAM"
    what = "RAM"
    advice = "use a smaller quantisation or context, or stop a worker"


class VramExhausted(_Insufficient):
    """Raised before anything starts when device memory cannot hold the model."""

    code = "VRAM_EXHAUSTED"
    what = "VRAM"
    advice = "use a smaller quantisation or context, another device, or stop a worker"


class InsufficientDisk(_Insufficient):
    """Raised before a transfer starts when the disk cannot hold the file."""

    code = "INSUFFICIENT_DISK"
    what = "disk"
    advice = "free some space, or set RBEE_HOME to a larger disk"


class HiveUnreachable(RbeeError):
    """Raised when no hive answers at an address after all attempts."""

    code = "HIVE_UNREACHABLE"
    http_status = 502

    def __init__(self, *, address: str, attempts: int) -> None:
        super().__init__(
            f"Cannot connect to {address} after {attempts} attempts",
            hint="check the address, and that `rbee hive start` was run there",
            address=address,
        )


class HiveNotAnswering(RbeeError):
    """Raised when this RBEE_HOME's hive is there and does not answer. No second one is started beside it.

    `halted` means that a signal stopped it (Ctrl+Z, SIGSTOP).
    """

    code = "HIVE_NOT_ANSWERING"
    http_status = 504

    def __init__(self, *, pid: int, address: str, halted: bool, why: str = "") -> None:
        kill = f"`kill -KILL {pid}` ends it and its workers"
        wait = f"it is halted: `kill -CONT {pid}` lets it go on" if halted else "it may be overloaded: try again"
        super().__init__(
            f"The hive of this RBEE_HOME (pid {pid}) does not answer at {address}" + (f": {why}" if why else ""),
            hint=f"{wait}; {kill}",
            pid=pid,
            address=address,
            halted=halted,
        )


class HiveUntrusted(RbeeError):
    """Raised when a hive's certificate is refused, or when what answers speaks no TLS."""

    code = "HIVE_UNTRUSTED"
    http_status = 502

    def __init__(self, *, address: str, why: str, hint: str) -> None:
        super().__init__(f"Cannot trust {address}: {why}", hint=hint, address=address)


class StreamBroken(RbeeError):
    """Raised when a stream ended without its terminal event."""

    code = "STREAM_BROKEN"
    http_status = 502

    def __init__(self, *, tokens: int, why: str) -> None:
        super().__init__(
            f"The stream broke off after {tokens} tokens: {why}",
            hint="what had arrived is kept above; run the command again",
            tokens=tokens,
        )


class AddressUnusable(RbeeError):
    """Raised when a server cannot listen where it was told to. `taken` means that somebody else does."""

    code = "ADDRESS_UNUSABLE"

    def __init__(self, *, host: str, port: int, why: str, taken: bool = False) -> None:
        self.why, self.taken = why, taken
        super().__init__(
            f"Cannot listen on {host}:{port}: {why}",
            hint="choose another --port, or --port 0 for a free one",
            host=host,
            port=port,
        )


class HomeUnusable(RbeeError):
    """Raised when RBEE_HOME cannot be created, read or written."""

    code = "HOME_UNUSABLE"

    def __init__(self, *, path: str, why: str) -> None:
        super().__init__(
            f"Cannot use {path} as RBEE_HOME: {why}",
            hint="correct its permissions, or set RBEE_HOME to another folder",
            path=path,
        )
