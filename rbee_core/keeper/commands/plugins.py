"""`rbee plugins`: what is installed, what it brings, and why a plugin did not load; and `rbee plugins new`."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import click

from rbee_core.backend.manager import PluginHost, PluginReport
from rbee_core.keeper.commands import plugin_template
from rbee_core.keeper.options import json_option
from rbee_core.keeper.screen.show import show_json, show_table

HEADERS = ("PLUGIN", "VERSION", "HOOKS", "BACKENDS", "SOURCES", "STATUS")


@click.group("plugins", invoke_without_command=True)
@json_option
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List the installed plugins and what they bring."""
    if os.environ.get("RBEE_DEBUG") != "1":
        # The table says what failed; Python's last-resort handler would print it a second time. With tracebacks it may.
        logging.getLogger("rbee_core.backend").addHandler(logging.NullHandler())
    if ctx.invoked_subcommand:
        return
    reports = PluginHost(os.environ).reports()
    if as_json:
        show_json({"plugins": [dataclasses.asdict(report) for report in reports]})
    elif not reports:
        click.echo("No plugins are installed")
    else:
        show_table(HEADERS, [_row(report) for report in reports])
        _show_failures(reports)


def _row(report: PluginReport) -> list[str]:
    return [
        report.name,
        f"{report.distribution} {report.version}".strip(),
        ", ".join(report.hooks) or "-",
        ", ".join(report.backends) or "-",
        ", ".join(report.sources) or "-",
        "failed" if report.failure else "ok",
    ]


def _show_failures(reports: Sequence[PluginReport]) -> None:
    for report in reports:
        if report.failure:
            click.echo(f"✗ {report.name}: {report.failure}")


@plugins.command("new")
@click.argument("name")
@click.option(
    "--directory", metavar="DIR", type=click.Path(path_type=Path), help="The folder to make.  [rbee-backend-NAME]"
)
def new(name: str, directory: Path | None) -> None:
    """Begin a plugin: a package with a small backend that works, and with the tests that it has to pass."""
    host = PluginHost(os.environ)
    plugin_template.check_name(name, {*host.backends(), *(report.name for report in host.reports())})
    folder = directory or Path(plugin_template.distribution(name))
    for path in plugin_template.write(name, folder):
        click.echo(path)
    click.echo("\nTry it:")
    click.echo(f"  pip install -e '{folder}[test]'")
    for command in plugin_template.commands(name):
        click.echo(f"  {command}")
