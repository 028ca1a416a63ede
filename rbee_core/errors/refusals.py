"""Errors that say no to a request: with other words, or at another time, it can succeed."""

from collections.abc import Iterable, Sequence

from rbee_core.errors.base import RbeeError, shorten


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
            hint="leave --device out to have the one with most free memory",
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


class NotSupported(RbeeError):
    """Raised when a request says something that the backend which would answer it cannot do.

    `fields` are those of the request, `words` the capabilities that they need.
    """

    code = "NOT_SUPPORTED"
    http_status = 422
    exit_code = 2

    def __init__(self, *, fields: Sequence[str], words: Sequence[str], backends: Sequence[str]) -> None:
        what = f"{', '.join(fields)}: that needs {' and '.join(words)}"
        alone = len(backends) == 1
        super().__init__(
            f"Backend {backends[0]} does not know {what}" if alone else f"None of {', '.join(backends)} knows {what}",
            hint="leave it out, or choose another backend: `rbee backends` shows what each can do",
            fields=list(fields),
            capabilities=list(words),
            backends=list(backends),
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


class MethodNotAllowed(RbeeError):
    """Raised when a path exists, but not with this method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405

    def __init__(self, *, method: str, path: str, allowed: list[str]) -> None:
        super().__init__(f"There is no {method} {path}", hint=f"use {' or '.join(allowed)}", allowed=allowed)


class DeadlineExceeded(RbeeError):
    """Raised when a request's own deadline passed, or no token came for too long."""

    code = "DEADLINE_EXCEEDED"
    http_status = 408

    @classmethod
    def after(cls, limit_s: float | None) -> "DeadlineExceeded":
        """Return the error for a deadline of so many seconds."""
        return cls(f"The request's deadline of {limit_s or 0:g} s passed")


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
    """Raised when a second persistent hive is started on one RBEE_HOME.

    `port` is 0 for one that does not listen yet, `pid` too for one that has left no note.
    """

    code = "HIVE_ALREADY_RUNNING"
    http_status = 409

    def __init__(self, *, pid: int, port: int) -> None:
        who = f"pid {pid}" + (f", port {port}" if port else "") if pid else "it is just starting or stopping"
        what = "use it" if port else "wait a moment for it"
        what = f"{what}, stop it with `rbee hive stop`" if pid else "try again in a moment"
        super().__init__(
            f"A hive is already {'starting' if pid and not port else 'running'} on this RBEE_HOME: {who}",
            hint=f"{what}, or set another RBEE_HOME",
            pid=pid,
            port=port,
        )


class ModelInUse(RbeeError):
    """Raised when a model that a worker holds, or a transfer writes, is to be deleted."""

    code = "MODEL_IN_USE"
    http_status = 409

    def __init__(self, *, reference: str, users: Sequence[str], ended_by: str = "") -> None:
        super().__init__(
            f"Model {reference} is in use by {', '.join(users)}",
            hint=f"end that first with `{ended_by}`" if ended_by else "try again when that is over",
            reference=reference,
            users=list(users),
        )


class PayloadTooLarge(RbeeError):
    """Raised when a request body is over the limit."""

    code = "PAYLOAD_TOO_LARGE"
    http_status = 413
    exit_code = 2

    def __init__(self, *, limit_bytes: int) -> None:
        super().__init__(
            f"The request body is larger than {limit_bytes} bytes",
            hint="send a shorter prompt, or raise body_limit_bytes",
            limit_bytes=limit_bytes,
        )


class UnsupportedMediaType(RbeeError):
    """Raised when a body is not declared as JSON, or is compressed: what a page can send without asking is refused."""

    code = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415

    def __init__(
        self, message: str = "The body must be sent as application/json", *, hint: str = "set Content-Type"
    ) -> None:
        super().__init__(message, hint=hint)

    @classmethod
    def encoded(cls, encoding: str) -> "UnsupportedMediaType":
        """Return the refusal of a body that is compressed: a small one could become any size."""
        return cls(f"The body must not be encoded, and is: {shorten(encoding, 40)}", hint="send it as it is")


class PromptTooLong(RbeeError):
    """Raised when a prompt does not fit the context."""

    code = "PROMPT_TOO_LONG"
    http_status = 400
    exit_code = 2

    def __init__(self, *, prompt_tokens: int, context_tokens: int, at_least: bool = False) -> None:
        """With `at_least`, nobody counted: so long a text cannot have fewer."""
        has = f"at least {prompt_tokens}" if at_least else f"{prompt_tokens}"
        super().__init__(
            f"The prompt has {has} tokens, the context holds {context_tokens}",
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
