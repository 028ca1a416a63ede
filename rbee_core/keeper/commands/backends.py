"""`rbee backends`: what can run models on this machine, and why something cannot. Asks no hive, imports no engine."""

import logging
import os

import click

from rbee_core import wire
from rbee_core.backend.manager import PluginHost
from rbee_core.inventory import as_text, describe_all
from rbee_core.keeper.options import json_option
from rbee_core.keeper.screen.show import show_json


@click.command("backends")
@json_option
def backends(as_json: bool) -> None:
    """List what can run models here, and why something cannot."""
    # A broken plugin is `rbee plugins`' to name; Python's last-resort handler would print it here.
    logging.getLogger("rbee_core.backend").addHandler(logging.NullHandler())
    described = describe_all(PluginHost(os.environ).candidates())
    if as_json:
        show_json(wire.BackendList(backends=described))
    else:
        for line in as_text(described):
            click.echo(line)
