"""`rbee plugins`: what is installed, what it brings, and why a plugin did not load."""

import dataclasses
import logging
import os
from collections.abc import Sequence

import click

from rbee_core.backend.manager import PluginHost, PluginReport
from rbee_core.keeper.show import show_json, show_table

HEADERS = ("PLUGIN", "VERSION", "HOOKS", "BACKENDS", "SOURCES", "STATUS")


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List the installed plugins and what they bring."""
    # The table says what failed; Python's last-resort handler would print it a second time.
    logging.getLogger("rbee_core.backend").addHandler(logging.NullHandler())
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
