"""docs/reference/cli.md names every command, argument and option of the programs, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from rbee_core.hive.main import cli as hive
from rbee_core.keeper.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"

Commands = dict[str, set[str]]


def documented() -> Commands:
    """Return the options under each heading, spelled as on the page."""
    found: Commands = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
            found[heading] = set()
        elif line.startswith("| `-"):
            found[heading] |= set(re.findall(r"`(.*?)`", line.split("|")[1]))
    return found


def programmed() -> Commands:
    return dict([*walk(cli, "rbee"), *walk(hive, "rbee-hive")])


def walk(command: click.Command, name: str) -> Iterator[tuple[str, set[str]]]:
    ctx = click.Context(command, info_name=name)
    arguments = [p.make_metavar(ctx) for p in command.params if isinstance(p, click.Argument)]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    yield " ".join([name, *arguments]), {spelled for option in options for spelled in spellings(option, ctx)}
    if isinstance(command, click.Group):
        for child in command.list_commands(ctx):
            found = command.get_command(ctx, child)
            assert found is not None
            yield from walk(found, f"{name} {child}")


def spellings(option: click.Option, ctx: click.Context) -> list[str]:
    value = "" if option.is_flag else f" {option.make_metavar(ctx)}"
    return [f"{opt}{value}" for opt in option.opts]


def test_every_command_with_its_arguments_is_documented() -> None:
    assert sorted(documented()) == sorted(programmed())


def test_every_option_is_documented_and_no_other() -> None:
    assert documented() == programmed()


def test_every_option_is_explained_in_its_help_or_by_its_name() -> None:
    for name, command in (("rbee", cli), ("rbee-hive", hive)):
        assert command.help, name
        assert all(text for _, text in _helps(command))


def _helps(command: click.Command) -> Iterator[tuple[str, str]]:
    yield command.name or "", command.help or ""
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for child in command.list_commands(ctx):
            found = command.get_command(ctx, child)
            assert found is not None
            yield from _helps(found)
