"""What each part of a hive needs of its settings. Cut in `daemon`, the one room that sees them all."""

from dataclasses import dataclass, field

from rbee_core.http.listen import Limits
from rbee_core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Who may come in, under which names, how many, with how much, and how slowly."""

    names: tuple[str, ...]
    api_key: str = field(repr=False)
    body_limit_bytes: int
    limits: Limits

    @classmethod
    def of(cls, settings: Settings) -> "Door":
        """Cut it; `allowed_hosts` is text with commas."""
        names = (settings.host, *settings.allowed_hosts.split(","))
        return cls(
            names=tuple(name.strip() for name in names if name.strip()),
            api_key=settings.api_key,
            body_limit_bytes=settings.body_limit_bytes,
            limits=Limits(
                connections=settings.connections_at_once,
                read_timeout_s=settings.read_timeout_s,
                write_timeout_s=settings.write_timeout_s,
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDefaults:
    """How a model is loaded where the demand does not say; None lets the engine choose."""

    context_tokens: int | None
    slots: int
    threads: int | None

    @classmethod
    def of(cls, settings: Settings) -> "LoadDefaults":
        """Cut it; 0 means that the engine chooses."""
        return cls(
            context_tokens=settings.context_tokens or None,
            slots=settings.slots_per_worker,
            threads=settings.threads or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTerms:
    """What every worker is told beside its model."""

    threads: int | None
    body_limit_bytes: int
    write_timeout_s: float
    connect_timeout_s: float

    @classmethod
    def of(cls, settings: Settings) -> "WorkerTerms":
        """Cut it."""
        return cls(
            threads=settings.threads or None,
            body_limit_bytes=settings.body_limit_bytes,
            write_timeout_s=settings.write_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long the hive waits for a worker: for a connection, a whole short answer, the next token."""

    connect_s: float
    request_s: float
    token_stall_s: float

    @classmethod
    def of(cls, settings: Settings) -> "Waits":
        """Cut it."""
        return cls(
            connect_s=settings.connect_timeout_s,
            request_s=settings.request_timeout_s,
            token_stall_s=settings.token_stall_timeout_s,
        )
