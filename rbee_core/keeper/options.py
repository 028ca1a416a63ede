"""Options that several commands share, so that each is spelt and explained once."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LOCALHOST = "localhost"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def node_option(help_text: str) -> Callable[[F], F]:
    """Return `--node`; the text says what the command does there."""
    return click.option("--node", default=LOCALHOST, show_default=True, metavar="HOST[:PORT]", help=help_text)
