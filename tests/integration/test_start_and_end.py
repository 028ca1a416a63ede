"""The first and the last moments of every program: Ctrl+C while it imports, streams that are closed or full."""

import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rbee_core.errors import DeadlineExceeded
from rbee_kit.program import SCRIPTS, Home
from rbee_kit.waiting import eventually

INTERRUPTED_AT = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
sys.argv[1:] = ["--help"]
from rbee_core.start import {program}
{program}()
"""


def through_shell(home: Home, *arguments: str, stream: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a program whose streams the shell redirects as `stream` says."""
    program, *rest = arguments
    argv: Sequence[str | Path] = ["sh", "-c", f'exec "$0" "$@" {stream}', SCRIPTS / program, *rest]
    return subprocess.run(argv, capture_output=True, env={**home.environment, **environment}, check=False, timeout=60)


@pytest.mark.parametrize("module", ["click", "rbee_core.errors.failures", "rbee_core.edge", "rbee_core.streams"])
@pytest.mark.parametrize("program", ["rbee", "rbee_hive"])
def test_b9_ctrl_c_while_a_program_is_imported_shows_no_traceback(home: Home, program: str, module: str) -> None:
    ended = home.python(INTERRUPTED_AT.format(module=module, program=program))

    assert (ended.exit_code, ended.stdout, ended.stderr) == (130, "", "")


LEAVING = """
import sys
from rbee_core import edge
edge.begin()
sys.stdout.write("half a line")
sys.stderr.write("half a remark")
edge.leave(3)
"""


def test_what_was_said_without_an_end_of_its_line_is_not_lost_at_the_end(home: Home) -> None:
    ended = home.python(LEAVING)
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, "half a line", "half a remark")


@pytest.mark.parametrize("arguments", [("rbee-hive", "detect"), ("rbee-hive", "--help"), ("rbee", "backends")])
@pytest.mark.parametrize("stream", [">/dev/full", ">&-"])
def test_b9_b10_an_answer_that_cannot_be_written_is_one_sentence(
    home: Home, arguments: Sequence[str], stream: str
) -> None:
    ended = through_shell(home, *arguments, stream=stream)

    assert ended.returncode == 1
    assert ended.stderr.startswith(b"error: Cannot write to stdout: ")
    assert ended.stderr.count(b"\n") == 2  # the sentence and its hint


@pytest.mark.parametrize("stream", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("options", [(), ("--quiet",), ("--json",)])
@pytest.mark.scripted
def test_b4_remarks_that_nobody_can_read_do_not_cost_the_answer(
    home: Home, stream: str, options: Sequence[str]
) -> None:
    model = ("--model", "scripted:tokens=3")
    ended = through_shell(home, "rbee", "infer", *model, "--prompt", "hello", *options, stream=stream)

    assert ended.returncode == 0
    assert ended.stdout.strip()
    assert b'"error"' not in ended.stdout
    assert b'"text":""' not in ended.stdout


@pytest.mark.parametrize("command", ["preflight", "backends"])
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp437"])
def test_b10_an_encoding_without_our_marks_gets_others(home: Home, command: str, encoding: str) -> None:
    ended = through_shell(home, "rbee", command, stream="", PYTHONIOENCODING=encoding)

    assert ended.returncode == 0
    assert b"bug" not in ended.stdout + ended.stderr


def test_b4_a_closed_stream_is_never_a_file_that_is_opened_later(home: Home) -> None:
    """With 1 and 2 closed, the catalog would be opened as stdout: what is printed would be written into it."""
    ended = through_shell(home, "rbee", "models", "list", stream="<&- >&- 2>&-")

    assert ended.returncode == 1
    assert home.rbee("models", "list").exit_code == 0
    assert not any(b"error:" in path.read_bytes() for path in home.path.rglob("*") if path.is_file())


def test_b13_what_a_hive_writes_is_its_users_own_whatever_the_umask(home: Home) -> None:
    home.path.mkdir(mode=0o755)
    argv = ["sh", "-c", 'umask 0; exec "$0" models list', SCRIPTS / "rbee"]
    subprocess.run(argv, capture_output=True, env=home.environment, check=True, timeout=60)

    written = list(home.path.rglob("*"))
    assert home.path / "logs" / "hive.log" in written
    assert [path for path in written if path.stat().st_mode & 0o077] == []


def test_c2_a_start_that_fails_leaves_no_empty_folder(home: Home) -> None:
    assert home.rbee("hive", "start", "--host", "0.0.0.0").exit_code == 2
    assert home.rbee("hive", "start", "--host", "no.such.host.invalid", "--port", "0").exit_code != 0

    assert not (home.path / "run").exists()


@pytest.mark.parametrize("said", ["", "the beginning"])
def test_b6_a_stdin_that_never_ends_is_waited_for_until_the_deadline(home: Home, said: str) -> None:
    read, write = os.pipe()
    os.write(write, said.encode())
    argv = [SCRIPTS / "rbee", "infer", "--timeout", "0.5"]
    with os.fdopen(read), os.fdopen(write, "w"):
        ended = subprocess.run(argv, stdin=read, capture_output=True, env=home.environment, check=False, timeout=60)

    assert ended.returncode == DeadlineExceeded.exit_code
    assert ended.stderr.startswith(b"error: The deadline of 0.5 s has passed\n")
    assert not home.path.exists()


def test_b6_ctrl_c_ends_the_wait_for_stdin(home: Home) -> None:
    read, write = os.pipe()
    os.write(write, b"the beginning")
    argv = [SCRIPTS / "rbee", "infer"]
    with os.fdopen(read), os.fdopen(write, "w"):
        waiting = subprocess.Popen(argv, stdin=read, stderr=subprocess.PIPE, env=home.environment)
        eventually(lambda: not select.select([read], [], [], 0)[0], 30, what="it has read the beginning")
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=30)

    assert (waiting.returncode, b"Traceback" in said) == (130, False)


def test_c18_verifying_a_home_that_is_a_file_is_refused(home: Home) -> None:
    home.path.write_text("")
    ended = home.rbee("models", "verify")
    assert (ended.exit_code, "is no folder" in ended.stderr) == (1, True)


@pytest.mark.scripted
@pytest.mark.parametrize("ended_by", ["Ctrl+C", "--timeout"])
def test_a_command_that_is_over_does_not_wait_for_a_worker_that_ignores_its_end(home: Home, ended_by: str) -> None:
    model = "scripted:tokens=inf;token_ms=20;ignore_shutdown=1;ignore_term=1"
    patient = {**home.environment, "RBEE_SHUTDOWN_GRACE_S": "600"}
    argv = [
        SCRIPTS / "rbee",
        "infer",
        "hello",
        "--model",
        model,
        *(["--timeout", "3"] if ended_by == "--timeout" else []),
    ]
    running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=patient)
    assert running.stdout is not None
    running.stdout.read(1)
    if ended_by == "Ctrl+C":
        running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode == (130 if ended_by == "Ctrl+C" else DeadlineExceeded.exit_code)
    eventually(lambda: not home.processes(), 30, what="nothing of it is left")
