"""The `rbee` command itself: finds the subcommand and runs it."""

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

import click

from rbee_core import __version__, edge

PACKAGE = "rbee_core.keeper.commands"

# name: (module, help). The help stands here so that listing the commands imports none of them.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "infer": ("infer", "Ask a model PROMPT, or what stdin holds, on this machine or another."),
    "embed": ("embed", "Print a vector for each TEXT, or for each line of a file."),
    "bench": ("bench", "Measure a model on this machine, and other servers beside it."),
    "hive": ("hive", "Start, stop and inspect this machine's hive."),
    "workers": ("workers", "List, check and shut down a hive's workers."),
    "models": ("models", "Fetch, list, check and remove models."),
    "logs": ("logs", "Show a worker's log."),
    "backends": ("backends", "List what can run models here, and why something cannot."),
    "plugins": ("plugins", "List the installed plugins and what they bring."),
    "preflight": ("preflight", "Check whether this machine is ready, or another node, and say what to do."),
    "doctor": ("preflight", "The same as preflight."),
}


class Commands(click.Group):
    """A group that imports a command when it is run.

    Plugins are asked for commands only when an unknown one is met. Reading the metadata of every installed
    distribution and importing the plugins takes longer than all of `rbee --help`: 6 bare Python starts measured,
    where the whole budget is 8. So the help names `rbee plugins` instead of listing plugins' commands.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the built-in commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or ask the plugins for it."""
        if cmd_name in COMMANDS:
            return getattr(import_module(f"{PACKAGE}.{COMMANDS[cmd_name][0]}"), cmd_name)
        if not self.commands:
            self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and their one-line helps without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def _ask_plugins(self) -> None:
        from rbee_core.backend.manager import PluginHost  # see the class

        PluginHost(os.environ).add_commands(self)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:  # Click's signature
    if wanted:
        click.echo(f"rbee {__version__}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Plugins may bring more commands: `rbee plugins` lists what is installed.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def cli() -> None:
    """Your own machines as one private LLM inference pool."""


def main() -> NoReturn:
    """Run the `rbee` command and exit."""
    edge.begin()
    edge.leave(run(sys.argv[1:]))


def run(arguments: Sequence[str], command: click.Command = cli) -> int:
    """Run `rbee` with `arguments` and return its exit code; whatever goes wrong, no traceback is shown."""
    return edge.run(command, arguments, "rbee")
