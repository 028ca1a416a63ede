"""How lists look: a table on a terminal, plain columns in a pipe, JSON when asked for."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from rbee_core.keeper.screen.render import wants_colour


def show_json(data: Any) -> None:
    """Print `data` (structs, dictionaries, lists) as one line of JSON."""
    from rbee_core import wire

    click.echo(wire.encode(data))


def show_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headers."""
    if wants_colour(sys.stdout, os.environ):
        _rich_table(headers, rows)
        return
    for line in plain_columns([headers, *rows]):
        click.echo(line)


def plain_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line a row, cells padded to their column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _rich_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headers, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def size_words(size_bytes: int) -> str:
    """Return a size for people, in powers of ten."""
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"


def count_workers(number: int) -> str:
    """Say how many workers, in words that fit any number."""
    return "1 worker" if number == 1 else f"{number} workers"


def date_words(at_unix: int) -> str:
    """Return a moment for people, in their own time zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_unix))
