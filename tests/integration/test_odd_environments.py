"""Every command in every odd environment that a cron job, a container or a full machine makes.

Whatever the environment, a command ends with an exit code of ours and at most one sentence and its hint; it shows no
traceback, takes nothing for a bug and leaves nothing running. Two at a time, because a command mostly imports.
"""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rbee_core.keeper.main import COMMANDS
from rbee_kit.program import SCRIPTS, Home, as_ordinary_user

pytestmark = pytest.mark.scripted

OURS = frozenset({0, 1, 2, 75})
EXAMPLES: tuple[tuple[str, ...], ...] = (
    ("rbee", "--help"),
    ("rbee", "infer", "--model", "scripted:tokens=2", "--prompt", "hello"),
    ("rbee", "hive", "status"),
    ("rbee", "workers", "list"),
    ("rbee", "models", "list"),
    ("rbee", "logs", "worker-1"),
    ("rbee", "backends"),
    ("rbee", "plugins"),
    ("rbee", "preflight"),
    ("rbee", "doctor", "--json"),
    ("rbee-hive", "detect"),
)


@dataclass(frozen=True)
class OddEnvironment:
    """What is odd: streams as a shell redirects them, what it sets before, variables, and which are missing."""

    streams: str = ""
    before: str = ""
    variables: dict[str, str] = field(default_factory=dict[str, str])
    missing: tuple[str, ...] = ()

    def run(self, home: Home, arguments: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
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
            argv, capture_output=True, env=kept | self.variables, check=False, timeout=120, preexec_fn=as_ordinary_user
        )  # fmt: skip


ENVIRONMENTS = {
    "all streams closed": OddEnvironment(streams="<&- >&- 2>&-"),
    "stdout is full": OddEnvironment(streams=">/dev/full"),
    "stdout and stderr are full": OddEnvironment(streams=">/dev/full 2>/dev/full"),
    "stderr is closed": OddEnvironment(streams="2>&-"),
    "latin-1": OddEnvironment(variables={"PYTHONIOENCODING": "latin-1"}),
    "the C locale, in ASCII": OddEnvironment(variables={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "no HOME and no terminal": OddEnvironment(missing=("HOME", "TERM", "LANG", "PATH")),
    "a screen of one column": OddEnvironment(variables={"COLUMNS": "1", "TERM": "dumb"}),
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
def low_fds() -> OddEnvironment:
    """An environment in which a hive cannot open what it needs."""
    return OddEnvironment(before="ulimit -n 10;")


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


def test_every_command_has_an_example() -> None:
    assert {arguments[1] for arguments in EXAMPLES if arguments[0] == "rbee"} - {"--help"} == set(COMMANDS)


def test_every_command_ends_well_in_every_odd_environment(home: Home, odd_environment: OddEnvironment) -> None:
    with ThreadPoolExecutor(2) as two:
        results = list(two.map(lambda arguments: (arguments, odd_environment.run(home, arguments)), EXAMPLES))

    for arguments, ended in results:
        assert judge(ended) == "", f"{arguments}: {ended}"
    assert home.processes() == []


def judge(ended: "subprocess.CompletedProcess[bytes]") -> str:
    """Return what is wrong with how a command ended."""
    said = ended.stdout + ended.stderr
    if ended.returncode not in OURS:
        return f"exit code {ended.returncode}"
    if b"Traceback" in said or b"Exception ignored" in said:
        return "a traceback"
    if b"this is a bug" in said or b"on a bug" in said:
        return "it takes itself for broken"
    return "more than one error" if ended.stderr.count(b"error: ") > 1 else ""


def test_every_command_ends_well_on_a_full_disk(home: Home, full_disk: Callable[[], OddEnvironment]) -> None:
    assert home.rbee("models", "list").exit_code == 0
    full = full_disk()

    for arguments in EXAMPLES:
        ended = full.run(home, arguments)
        assert judge(ended) == "", f"{arguments}: {ended}"
    assert home.processes() == []


def test_c9_a_hive_that_may_open_hardly_a_file_says_so(home: Home, low_fds: OddEnvironment) -> None:
    ended = low_fds.run(home, ("rbee-hive", "daemon", "--port", "0"))

    assert ended.returncode == 1
    assert judge(ended) == ""
    assert b"error: " in ended.stderr
