"""`nox --session check` has two lanes: the failure of either counts, what they print is shown, both end together."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee_kit.waiting import eventually

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100
# What stands for every program that the checks start: it is found first, in the working directory.
NOTHING = ""
PYTEST = """
import pathlib, sys, time
lane = "specification" if "features" in sys.argv else "tests"
sys.stdout.buffer.write(lane.encode() + b" ran, in latin-1: \\xe9\\n")
sys.stdout.flush()
pathlib.Path(f"{lane}.started").touch()
try:
    while pathlib.Path("wait").exists():
        time.sleep(0.01)
except KeyboardInterrupt:
    pathlib.Path(f"{lane}.cleaned-up").touch()
    sys.exit(2)
sys.exit(pathlib.Path(f"{lane}.fails").exists())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clone whose programs are stand-ins."""
    shutil.copyfile(ROOT / "noxfile.py", tmp_path / "noxfile.py")
    (tmp_path / "scripts").mkdir()
    stands_for = {"ruff": NOTHING, "pyright": NOTHING, "pip": NOTHING, "scripts/make_mlx_model": NOTHING}
    for name, text in {**stands_for, "pytest": PYTEST}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


def check(folder: Path) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NOX", "PYTHON", "PYTEST"))}
    return subprocess.Popen(
        [sys.executable, "-m", "nox", "--session", "check"],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("fails", ["", "tests", "specification"])
def test_either_lane_can_fail_the_checks_and_both_are_shown(folder: Path, fails: str) -> None:
    (folder / f"{fails}.fails").touch()
    with check(folder) as process:
        printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (1 if fails else 0), printed
    assert b"tests ran, in latin-1: \xe9\n" in printed
    assert b"specification ran, in latin-1: \xe9\n" in printed


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda process: os.killpg(process.pid, signal.SIGINT), id="Ctrl+C"),
        pytest.param(lambda process: process.terminate(), id="SIGTERM"),
    ],
)
def test_both_lanes_clean_up_when_the_checks_are_ended(folder: Path, end: Callable[[subprocess.Popen], None]) -> None:
    (folder / "wait").touch()
    with check(folder) as process:
        started = [folder / "tests.started", folder / "specification.started"]
        eventually(lambda: all(path.exists() for path in started), PATIENCE_S, what="both lanes run")
        end(process)
        printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode != 0
    assert (folder / "tests.cleaned-up").exists(), printed
    assert (folder / "specification.cleaned-up").exists(), printed


def test_every_folder_of_tests_is_a_part_of_the_checks() -> None:
    written = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert [name for name in sorted(folders) if f'"tests/{name}"' not in written] == []
