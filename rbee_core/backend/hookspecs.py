"""The hooks. Those that register are called once, in the process named: no work, no I/O, no engine import."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pluggy import HookspecMarker

from rbee_core.backend.base import Backend, ModelSource

if TYPE_CHECKING:
    import click

hookspec = HookspecMarker("rbee")


@hookspec
def rbee_register_backends(register: Callable[[Backend], None]) -> None:
    """Call `register` for each backend. Fires when hive, worker or CLI first needs backends."""


@hookspec
def rbee_register_model_sources(register: Callable[[ModelSource], None]) -> None:
    """Call `register` for each model source. Fires when hive or CLI first needs sources."""


@hookspec
def rbee_add_commands(group: "click.Group") -> None:
    """Add commands to the `rbee` group. Fires when the CLI meets a command it does not know."""


@hookspec
def rbee_worker_ready(worker_id: str, model: str, backend: str, device: str) -> None:
    """Notice that a worker became ready. Fires in the hive, in a helper thread: a plugin hears one thing at a time."""


@hookspec
def rbee_worker_gone(worker_id: str, reason: str) -> None:
    """Notice that a worker left the registry. Fires as `rbee_worker_ready` does, and after it."""
