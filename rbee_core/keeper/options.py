"""Options that several commands share, so that each is spelt and explained once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LOCALHOST = "localhost"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def node_option(help_text: str) -> Callable[[F], F]:
    """Return `--node`; the text says what the command does there."""
    return click.option("--node", default=LOCALHOST, show_default=True, metavar="HOST[:PORT]", help=help_text)


def all_of(options: Iterable[Callable[[Any], Any]]) -> Callable[[F], F]:
    """Return a decorator that adds `options`, in their order."""

    def add(command: F) -> F:
        for option in reversed([*options]):
            command = option(command)
        return command

    return add


def in_sections(sections: Mapping[str, Sequence[str]]) -> type[click.Command]:
    """Return a class of commands whose help shows the options under titles; `sections` has each title's parameters.

    What no section names comes last.
    """

    class Sectioned(click.Command):
        def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            shown = {p.name: p.get_help_record(ctx) for p in self.get_params(ctx) if isinstance(p, click.Option)}
            named = {name for names in sections.values() for name in names}
            others = [name for name in shown if name not in named]
            for title, names in [*sections.items(), ("Other", others)]:
                records = [record for name in names if (record := shown.get(name))]
                if records:
                    with formatter.section(title):
                        formatter.write_dl(records)

    return Sectioned
