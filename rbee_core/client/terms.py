"""What a client needs of the settings: whom it trusts, who it is, and how long it waits."""

from dataclasses import dataclass, field
from typing import Self

from rbee_core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTerms:
    """One client's slice. Seconds end in `_s`; `ca_file` is empty for the system's authorities."""

    api_key: str = field(repr=False)
    ca_file: str
    connect_s: float
    request_s: float
    """For an answer that the hive has at once."""
    worker_start_s: float
    grace_s: float
    """What a hive or a worker may take to end."""
    token_stall_s: float
    line_s: float
    """For a sign of life on a line to another machine."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Cut it."""
        return cls(
            api_key=settings.api_key,
            ca_file=settings.ca_file,
            connect_s=settings.connect_timeout_s,
            request_s=settings.request_timeout_s,
            worker_start_s=settings.worker_start_timeout_s,
            grace_s=settings.shutdown_grace_s,
            token_stall_s=settings.token_stall_timeout_s,
            line_s=settings.line_timeout_s,
        )
