"""Options that say how a model is to be run, and how they travel."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from rbee_core.errors import InvalidRequest, shorten
from rbee_core.keeper.hives import address

lora_option = click.option(
    "--lora",
    multiple=True,
    metavar="PATH[:SCALE]",
    help="Run the model with this LoRA adapter, a file on the node; may be repeated.",
)


def tuning(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the options say of it, None for nothing."""
    lora: Sequence[str] = options["lora"]
    return {"lora": [adapter(text, options["node"]) for text in lora]} if lora else None


def adapter(text: str, node: str) -> dict[str, Any]:
    """Return an adapter's absolute path on `node`, and how strongly it counts.

    What stands behind the last colon is the scale, if it is a number. Raises `InvalidRequest` for a path that would
    mean nothing on another machine.
    """
    path, colon, after = text.rpartition(":")
    scale = _number(after) if colon else None
    if scale is None:
        path = text
    if not path:
        raise InvalidRequest(f"Invalid --lora: {shorten(text)} names no file")
    if not address.is_here(node):
        if not Path(path).is_absolute():
            hint = f"give the absolute path that it has on {node}"
            raise InvalidRequest(f"The path {shorten(path)} means nothing on {node}", hint=hint)
    else:
        path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  # keeps symbolic links
    return {"path": path, "scale": 1.0 if scale is None else scale}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
