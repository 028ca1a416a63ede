"""Runs MLX model folders with mlx-lm. Registers the backend; mlx is imported when a worker loads a model."""

from collections.abc import Callable

from rbee_core.backend import Backend, hookimpl
from rbee_plugins.mlx.backend import Mlx


@hookimpl
def rbee_register_backends(register: Callable[[Backend], None]) -> None:
    """Register ``mlx``."""
    register(Mlx())
