"""On what terms a hive lives on its RBEE_HOME, and what each part of it needs of the settings.

Cut in `daemon` and, when they are taken again, in `config.reload`: the rooms of a hive that see all settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rbee_core.settings import Settings

if TYPE_CHECKING:  # a hive starts its spare worker before it imports an HTTP server
    from rbee_core.domain.limits import Limits
    from rbee_core.domain.tuning import Tuning
    from rbee_core.domain.worker import Stay
    from rbee_core.http import listen


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """The terms of one hive; each stands for itself, and any combination works."""

    lock: bool
    """It holds RBEE_HOME: a second hive with this term is refused."""
    note: bool
    """It says in RBEE_HOME where it listens, so that it can be found."""
    lifeline: bool
    """It belongs to the process at the other end of its stdin, and stops when that ends."""
    private_port: bool
    """It listens on a free port of the loopback, whatever the settings say."""
    spare: bool
    """It prepares a worker process before anybody asks, because the first request is near."""
    slots: int = 0
    """How many requests its workers serve at a time where nobody says; 0: what suits cores and memory."""
    dialects: bool = True
    """It answers clients that were written for somebody else's HTTP."""


ON_DISK_SHARE = 0.25
"""Of the time to stop in: half of what a worker that was asked has for its whole end (`processes.stop`)."""

PERSISTENT = Tenure(lock=True, note=True, lifeline=False, private_port=False, spare=False)
EPHEMERAL = Tenure(
    lock=False, note=False, lifeline=True, private_port=True, spare=True, slots=1, dialects=False
)  # one command's own: it makes one request at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Who may come in, under which names, how many, with how much, and how slowly."""

    names: tuple[str, ...]
    origins: tuple[str, ...]
    api_key: str = field(repr=False)
    body_limit_bytes: int
    limits: "listen.Limits"

    @classmethod
    def of(cls, settings: Settings) -> "Door":
        """Cut it; `allowed_hosts` and `cors_origins` are text with commas."""
        from rbee_core.http.listen import Limits

        names = (settings.host, *settings.allowed_hosts.split(","))
        return cls(
            names=tuple(name.strip() for name in names if name.strip()),
            origins=tuple(o.strip().rstrip("/") for o in settings.cors_origins.split(",") if o.strip()),
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
    tuning: "Tuning"

    @classmethod
    def of(cls, settings: Settings) -> "LoadDefaults":
        """Cut it; 0 and "" mean that the engine chooses."""
        from msgspec import convert

        from rbee_core.domain.tuning import Tuning

        tuning = {
            "cache_type_k": settings.cache_type_k,
            "cache_type_v": settings.cache_type_v,
            "speculation": settings.speculation,
        }
        said: dict[str, object] = {name: value for name, value in tuning.items() if value}
        if settings.prompt_cache_bytes is not None:
            said["prompt_cache_bytes"] = settings.prompt_cache_bytes
        if settings.flash_attention:
            said["flash_attention"] = settings.flash_attention == "on"
        return cls(
            context_tokens=settings.context_tokens or None,
            slots=settings.slots_per_worker,
            threads=settings.threads or None,
            tuning=convert(said, Tuning),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerTerms:
    """What every worker is told beside its model.

    Of prompts it may leave `on_disk_bytes` on disk when it ends, together with all others, within `on_disk_s`.
    """

    threads: int | None
    body_limit_bytes: int
    write_timeout_s: float
    connect_timeout_s: float
    on_disk_bytes: int = 0
    on_disk_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "WorkerTerms":
        """Cut it."""
        return cls(
            threads=settings.threads or None,
            body_limit_bytes=settings.body_limit_bytes,
            write_timeout_s=settings.write_timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
            on_disk_bytes=settings.prompt_cache_on_disk_bytes,
            on_disk_s=settings.shutdown_grace_s * ON_DISK_SHARE,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """How the supervisor looks after workers: the pool's limits, the time to stop in, the size of a log."""

    limits: "Limits"
    grace_s: float
    log_limit_bytes: int

    @classmethod
    def of(cls, settings: Settings, stays: "Mapping[str, Stay]") -> "Care":
        """Cut it; `stays` is what the models' own settings say of how long their workers stay."""
        from rbee_core.domain.limits import Limits

        limits = Limits(
            worker_start_s=settings.worker_start_timeout_s,
            load_stall_s=settings.load_stall_timeout_s,
            idle_s=settings.idle_timeout_s,
            probe_every_s=settings.probe_interval_s,
            queue=settings.queue_limit,
            restart_delay_s=settings.restart_delay_s,
            quarantine_s=settings.quarantine_s,
            stays=stays,
        )
        return cls(limits=limits, grace_s=settings.shutdown_grace_s, log_limit_bytes=settings.log_limit_bytes)
