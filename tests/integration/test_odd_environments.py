"""Every command in every odd environment that a cron job, a container or a full machine makes.

Whatever the environment, a command ends with an exit code of ours and at most one sentence and its hint; it shows no
traceback, takes nothing for a bug and leaves nothing running. Two at a time, because a command mostly imports.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

from rbee_core.hive.main import cli as hive_cli
from rbee_core.keeper.main import cli as keeper_cli
from rbee_kit.program import SCRIPTS, Home, as_ordinary_user

pytestmark = pytest.mark.scripted

OURS = frozenset({0, 1, 2, 75})
ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "rbee infer": ("--model", "scripted:tokens=2", "--prompt", "hello"),
    "rbee hive start": ("--port", "0"),
    "rbee workers shutdown": ("--all",),
    "rbee models show": ("scripted:",),
    "rbee models pull": ("scripted:",),
    "rbee models rm": ("scripted:",),
    "rbee logs": ("worker-1",),
    "rbee plugins new": ("odd", "--directory", "odd"),
    "rbee-hive daemon": ("--port", "0"),
}


def leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield whatever can be run, under the name that it is run by."""
    ctx = click.Context(command)
    children = command.list_commands(ctx) if isinstance(command, click.Group) else []
    for child in children:
        found = command.get_command(ctx, child)
        assert found is not None
        yield from leaves(found, f"{name} {child}")
    if not children or command.invoke_without_command:
        yield name, command


SECOND_NAMES = {"rbee doctor": "rbee preflight"}
"""Starting a command by its second name shows nothing new."""
COMMANDS = {
    name: command
    for name, command in [*leaves(keeper_cli, "rbee"), *leaves(hive_cli, "rbee-hive")]
    if name not in SECOND_NAMES
}
START, STOP = "rbee hive start", "rbee hive stop"
WITHOUT_HIVE = ("rbee infer", "rbee backends", "rbee plugins", "rbee-hive detect")
"""These come first: one starts a hive for itself alone, and the others need none."""


@dataclass(frozen=True)
class OddEnvironment:
    """What is odd: streams as a shell redirects them, what it sets before, variables, and which are missing."""

    streams: str = ""
    before: str = ""
    variables: dict[str, str] = field(default_factory=dict[str, str])
    missing: tuple[str, ...] = ()

    def run(self, home: Home, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Run a command in it."""
        program, *rest = arguments
        argv: Sequence[str | Path] = [
            "sh",
            "-c",
            f'{self.before} exec "$0" "$@" {self.streams}',
            SCRIPTS / program,
            *rest,
        ]
        kept = {name: value for name, value in home.environment.items() if name not in self.missing}
        return subprocess.run(
            argv,
            capture_output=True,
            cwd=home.folder,
            env=kept | self.variables,
            check=False,
            timeout=120,
            preexec_fn=as_ordinary_user,
        )

    def judge(self, home: Home, *arguments: str) -> str:
        """Run a command in it, and return what is wrong with how that ended."""
        ended = self.run(home, *arguments)
        said = ended.stdout + ended.stderr
        wrong = ""
        if ended.returncode not in OURS:
            wrong = f"exit code {ended.returncode}"
        elif b"Traceback" in said or b"Exception ignored" in said:
            wrong = "a traceback"
        elif b"this is a bug" in said or b"on a bug" in said:
            wrong = "it takes itself for broken"
        elif ended.stderr.count(b"error: ") > 1:
            wrong = "more than one error"
        elif ended.returncode and not said and "2>" not in self.streams:
            wrong = "not a word about why it failed"
        return f"{' '.join(arguments)}: {wrong}: {ended}" if wrong else ""

    def judge_all(self, home: Home) -> list[str]:
        """Run every command in it, most of them beside a hive, and return what is wrong with how they ended."""
        others = [command for command in COMMANDS if command not in (*WITHOUT_HIVE, START, STOP)]
        with ThreadPoolExecutor(2) as two:
            first = list(two.map(lambda command: self.judge(home, *typed(command)), WITHOUT_HIVE))
            start = self.judge(home, *typed(START))
            then = list(two.map(lambda command: self.judge(home, *typed(command)), others))
        return list(filter(None, [*first, start, *then, self.judge(home, *typed(STOP))]))


def typed(command: str) -> list[str]:
    """Return what is typed to run a command."""
    return [*command.split(), *ARGUMENTS.get(command, ())]


ENVIRONMENTS = {
    "all streams closed": OddEnvironment(streams="<&- >&- 2>&-"),
    "stdout is full": OddEnvironment(streams=">/dev/full"),
    "stdout and stderr are full": OddEnvironment(streams=">/dev/full 2>/dev/full"),
    "stderr is closed": OddEnvironment(streams="2>&-"),
    "a screen of one column, in latin-1": OddEnvironment(
        variables={"PYTHONIOENCODING": "latin-1", "COLUMNS": "1", "TERM": "dumb"}
    ),
    "no HOME, no PATH and no terminal, in ASCII": OddEnvironment(
        variables={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        missing=("HOME", "TERM", "LANG", "PATH"),
    ),
    "few descriptors": OddEnvironment(before="ulimit -n 16;"),
    "a home that cannot be named": OddEnvironment(before="RBEE_HOME=$(printf '/tmp/rbee-\\377'); export RBEE_HOME;"),
    "a home that is a file": OddEnvironment(variables={"RBEE_HOME": "/dev/null"}),
    "a home that is too long": OddEnvironment(variables={"RBEE_HOME": "/tmp/" + "/".join(["x" * 100] * 9)}),
    "a key that is no text": OddEnvironment(variables={"RBEE_API_KEY": "k\u00e9"}),
}


@pytest.fixture(params=ENVIRONMENTS)
def odd_environment(request: pytest.FixtureRequest) -> OddEnvironment:
    """One of the odd environments."""
    return ENVIRONMENTS[request.param]


@pytest.fixture
def full_disk(home: Home) -> Iterator[Callable[[], OddEnvironment]]:
    """Make RBEE_HOME a disk of its own, and return what fills it and returns the environment to use it in.

    A small tmpfs where the system lets us mount one. Elsewhere files that may not grow stand for it: the same writes
    are refused.
    """
    home.path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(home.path)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill() -> OddEnvironment:
        if not mounted:
            return OddEnvironment(before="ulimit -f 0;")
        with contextlib.suppress(OSError), (home.path / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        return OddEnvironment()

    yield fill
    if mounted:
        subprocess.run(["umount", "--lazy", home.path], check=True)


def test_every_command_is_typed_with_what_it_needs() -> None:
    needy = {name for name, command in COMMANDS.items() if any(param.required for param in command.params)}
    assert needy <= set(ARGUMENTS) <= set(COMMANDS)


def test_every_command_ends_well_in_every_odd_environment(home: Home, odd_environment: OddEnvironment) -> None:
    assert odd_environment.judge_all(home) == []
    nothing_runs(home)


def test_every_command_ends_well_on_a_full_disk(home: Home, full_disk: Callable[[], OddEnvironment]) -> None:
    assert home.rbee("models", "list").exit_code == 0
    assert full_disk().judge_all(home) == []
    nothing_runs(home)


def nothing_runs(home: Home) -> None:
    assert home.processes() == []
    assert list(home.path.glob("run/*")) == []


def test_c9_a_hive_that_may_open_hardly_a_file_says_so(home: Home, low_fds: Callable[[int], None]) -> None:
    low_fds(10)
    ended = home.start("rbee-hive", "daemon", "--port", "0").finish()

    assert ended.exit_code == 1
    assert ended.stderr.count("error: ") == 1
    assert "Traceback" not in ended.stderr
    assert "bug" not in ended.stderr
