"""Every error a user can meet, each with its code, exit code, HTTP status and hint.

::

    RbeeError                     INTERNAL             500  exit 1
    ├── InvalidRequest            INVALID_REQUEST      400  exit 2
    ├── InvalidApiKey             INVALID_API_KEY      401
    ├── AccessDenied              ACCESS_DENIED        403
    ├── ModelNotFound             MODEL_NOT_FOUND      404
    ├── WorkerNotFound            WORKER_NOT_FOUND     404
    ├── RouteNotFound             NOT_FOUND            404
    ├── DeadlineExceeded          DEADLINE_EXCEEDED    408
    ├── VersionMismatch           VERSION_MISMATCH     409
    ├── HiveAlreadyRunning        HIVE_ALREADY_RUNNING 409
    ├── ModelInUse                MODEL_IN_USE         409
    ├── PayloadTooLarge           PAYLOAD_TOO_LARGE    413
    ├── UnsupportedMediaType      UNSUPPORTED_MEDIA_TYPE 415
    ├── PromptTooLong             PROMPT_TOO_LONG      400  exit 2
    ├── ModelLoadFailed           MODEL_LOAD_FAILED    422
    ├── RequestCanceled           REQUEST_CANCELED     499  exit 130
    ├── WorkerCrashed             WORKER_CRASHED       502
    ├── DownloadFailed            DOWNLOAD_FAILED      502
    ├── ChecksumMismatch          CHECKSUM_MISMATCH    502
    ├── BackendNotAvailable       BACKEND_NOT_AVAILABLE 503
    ├── AllSlotsBusy              ALL_SLOTS_BUSY       503  exit 75
    ├── ShuttingDown              SHUTTING_DOWN        503
    ├── WorkerNotReady            WORKER_NOT_READY     503
    ├── CatalogUnusable           CATALOG_UNUSABLE     503
    ├── LoadingTimeout            LOADING_TIMEOUT      504
    ├── InsufficientRam           INSUFFICIENT_RAM     507
    ├── VramExhausted             VRAM_EXHAUSTED       507
    ├── InsufficientDisk          INSUFFICIENT_DISK    507
    ├── HiveUnreachable           HIVE_UNREACHABLE     502
    ├── StreamBroken              STREAM_BROKEN        502
    ├── AddressUnusable           ADDRESS_UNUSABLE     500
    ├── HomeUnusable              HOME_UNUSABLE        500
    └── RemoteError               whatever the other side said

Classes take data, keyword-only, and build their own sentence.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar


class RbeeError(Exception):
    """Root of the tree: one sentence for a person, a hint, and details for a program.

    `message` says what happened and why, `hint` what to do; `details` must be JSON values.
    """

    code: str = "INTERNAL"
    http_status: int = 500
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, Any]:
        """Return the error as the wire's `{"error": {code, message, details}}` object."""
        details = {**self.details, **({"hint": self.hint} if self.hint else {})}
        return {"error": {"code": self.code, "message": self.message, "details": details}}


class InvalidRequest(RbeeError):
    """Raised when what was asked can never work as written, whatever the machine's state."""

    code = "INVALID_REQUEST"
    http_status = 400
    exit_code = 2

    @classmethod
    def unknown_backend(cls, name: str, valid: Iterable[str]) -> "InvalidRequest":
        """Name a backend that no plugin registers."""
        names = sorted(valid)
        return cls(
            f"Invalid backend: {name}. Valid: [{', '.join(names)}]",
            hint="`rbee plugins` lists the backends that are installed",
            backend=name,
            valid=names,
        )

    @classmethod
    def device_out_of_range(cls, index: int, available: Sequence[int]) -> "InvalidRequest":
        """Name a device index that the backend does not have."""
        return cls(
            f"Device {index} not available. Available: {list(available)}",
            hint="leave --device out to use the first one",
            device=index,
            available=list(available),
        )

    @classmethod
    def bad_reference(cls, reference: str, why: str) -> "InvalidRequest":
        """Name a model reference that cannot be parsed."""
        return cls(
            f"Invalid model reference {shorten(reference)!r}: {why}",
            hint="use a path to a .gguf file, pkg:distribution/file, hf:org/repo[:QUANT] or an alias",
            reference=shorten(reference),
        )


class InvalidApiKey(RbeeError):
    """Raised when a route that is guarded by a token gets none, or another one."""

    code = "INVALID_API_KEY"
    http_status = 401

    def __init__(self) -> None:
        super().__init__("The API key is missing or wrong", hint="set RBEE_API_KEY to the hive's key")


class AccessDenied(RbeeError):
    """Raised when the hub refuses, or when Host or Origin is not ours."""

    code = "ACCESS_DENIED"
    http_status = 403


class ModelNotFound(RbeeError):
    """Raised when neither path nor source has the model."""

    code = "MODEL_NOT_FOUND"
    http_status = 404

    def __init__(self, *, reference: str, why: str, hint: str = "") -> None:
        super().__init__(
            f"Model {shorten(reference)} not found: {why}",
            hint=hint or "check the spelling, or give a path to a .gguf file",
            reference=shorten(reference),
        )


class WorkerNotFound(RbeeError):
    """Raised when no worker of this hive has that id."""

    code = "WORKER_NOT_FOUND"
    http_status = 404

    def __init__(self, *, worker_id: str) -> None:
        super().__init__(
            f"No worker {shorten(worker_id)} on this hive",
            hint="`rbee workers list` shows the live ones",
            worker_id=shorten(worker_id),
        )


class RouteNotFound(RbeeError):
    """Raised when a path is not part of the API."""

    code = "NOT_FOUND"
    http_status = 404


class DeadlineExceeded(RbeeError):
    """Raised when a request's own deadline passed, or no token came for too long."""

    code = "DEADLINE_EXCEEDED"
    http_status = 408


class VersionMismatch(RbeeError):
    """Raised when keeper and hive cannot work together."""

    code = "VERSION_MISMATCH"
    http_status = 409

    def __init__(self, *, keeper: str, hive: str) -> None:
        super().__init__(
            f"This rbee is version {keeper}, the hive is version {hive}",
            hint="install the same minor version on both, then restart the hive",
            keeper=keeper,
            hive=hive,
        )


class HiveAlreadyRunning(RbeeError):
    """Raised when a second persistent hive is started on one RBEE_HOME."""

    code = "HIVE_ALREADY_RUNNING"
    http_status = 409

    def __init__(self, *, pid: int, port: int) -> None:
        super().__init__(
            f"A hive is already running on this RBEE_HOME: pid {pid}, port {port}",
            hint="use it, stop it with `rbee hive stop`, or set another RBEE_HOME",
            pid=pid,
            port=port,
        )


class ModelInUse(RbeeError):
    """Raised when a model that a worker holds, or a transfer writes, is to be deleted."""

    code = "MODEL_IN_USE"
    http_status = 409

    def __init__(self, *, reference: str, users: Sequence[str]) -> None:
        super().__init__(
            f"Model {reference} is in use by {', '.join(users)}",
            hint="stop them first with `rbee workers shutdown`",
            reference=reference,
            users=list(users),
        )


class PayloadTooLarge(RbeeError):
    """Raised when a request body is over the limit."""

    code = "PAYLOAD_TOO_LARGE"
    http_status = 413

    def __init__(self, *, limit_bytes: int) -> None:
        super().__init__(
            f"The request body is larger than {limit_bytes} bytes",
            hint="send a shorter prompt, or raise body_limit_bytes",
            limit_bytes=limit_bytes,
        )


class UnsupportedMediaType(RbeeError):
    """Raised when a body is not declared as JSON: what a web page can send without asking is refused."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415

    def __init__(self) -> None:
        super().__init__("The body must be sent as application/json", hint="set Content-Type")


class PromptTooLong(RbeeError):
    """Raised when a prompt does not fit the context."""

    code = "PROMPT_TOO_LONG"
    http_status = 400
    exit_code = 2

    def __init__(self, *, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"The prompt has {prompt_tokens} tokens, the context holds {context_tokens}",
            hint="shorten the prompt, or start the worker with a larger context",
            prompt_tokens=prompt_tokens,
            context_tokens=context_tokens,
        )


class ModelLoadFailed(RbeeError):
    """Raised when a file is not a model this backend can load."""

    code = "MODEL_LOAD_FAILED"
    http_status = 422

    def __init__(self, *, reference: str, why: str, hint: str = "") -> None:
        super().__init__(
            f"Cannot load {shorten(reference)}: {why}",
            hint=hint or "the file may be damaged or of another format; get it again",
            reference=shorten(reference),
        )


class RequestCanceled(RbeeError):
    """Raised when the client cancelled its request."""

    code = "REQUEST_CANCELED"
    http_status = 499
    exit_code = 130

    def __init__(self) -> None:
        super().__init__("The request was cancelled by the client")


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


class DownloadFailed(RbeeError):
    """Raised when a transfer failed after all its attempts."""

    code = "DOWNLOAD_FAILED"
    http_status = 502


class ChecksumMismatch(RbeeError):
    """Raised when a file arrived twice with other bytes than the hub announced."""

    code = "CHECKSUM_MISMATCH"
    http_status = 502


class BackendNotAvailable(RbeeError):
    """Raised when a backend was asked for by name and cannot run here."""

    code = "BACKEND_NOT_AVAILABLE"
    http_status = 503

    def __init__(self, *, backend: str, why: str, available: Iterable[str], hint: str = "") -> None:
        names = sorted(available)
        listed = f"available here: {', '.join(names)}" if names else "no backend is available here"
        super().__init__(
            f"Backend {backend} is not available: {why}",
            hint=f"{hint}; {listed}" if hint else listed,
            backend=backend,
            available=names,
        )


class AllSlotsBusy(RbeeError):
    """Raised when a worker serves as many requests as it has slots."""

    code = "ALL_SLOTS_BUSY"
    http_status = 503
    exit_code = 75

    def __init__(self, *, slots: int, busy: int) -> None:
        super().__init__(
            f"All slots are busy ({busy} of {slots})", hint="try again in a moment", slots=slots, busy=busy
        )


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

    def __init__(self, *, need_bytes: int, have_bytes: int) -> None:
        need_mb, have_mb = -(-need_bytes // 1_000_000), have_bytes // 1_000_000
        super().__init__(
            f"Insufficient {self.what}: need {need_mb} MB, have {have_mb} MB",
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
    """Raised when a server cannot listen where it was told to."""

    code = "ADDRESS_UNUSABLE"

    def __init__(self, *, host: str, port: int, why: str) -> None:
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


class RemoteError(RbeeError):
    """Raised by the client: an error that the other side answered with, unchanged."""

    def __init__(self, *, code: str, message: str, http_status: int, details: dict[str, Any]) -> None:
        rest = dict(details)
        hint = str(rest.pop("hint", ""))
        super().__init__(message, hint=hint)
        self.details = rest  # whatever its keys are called
        self.code, self.http_status = code, http_status
        self.exit_code = next((c.exit_code for c in error_classes() if c.code == code), 1)


def error_classes() -> Iterator[type[RbeeError]]:
    """Yield every public class of the tree that fixes a code of its own, root first."""
    pending: list[type[RbeeError]] = [RbeeError]
    while pending:
        cls = pending.pop(0)
        pending.extend(cls.__subclasses__())
        if "code" in vars(cls):
            yield cls


def shorten(text: str, limit: int = 200) -> str:
    """Return `text` fit for one line of an error: bounded, without control characters."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
