"""Starting worker processes, and the one that an ephemeral hive starts before it is ready itself.

Half of a worker's start is importing its server. An ephemeral hive is started for exactly one worker, so it starts that
process first and does its own imports meanwhile, on another core. The process waits for its specification on stdin, as
any worker does; if none comes it leaves with the hive. Imports little, because it runs first.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rbee_core.home import INSTANCE_LENGTH, INSTANCE_VARIABLE, Home
from rbee_core.titles import named

SECRET_VARIABLES = frozenset({"RBEE_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})


@dataclass(frozen=True)
class Spare:
    """A worker process without a specification yet. `instance` tags it, and has to tag the whole hive."""

    worker_id: str
    instance: str
    process: "subprocess.Popen[bytes]"


def new_instance() -> str:
    """Return a tag for a hive's processes that no other hive has."""
    return os.urandom(INSTANCE_LENGTH // 2).hex()


def new_worker_id() -> str:
    """Return a name for a worker that is easy to read and to type."""
    return f"worker-{os.urandom(3).hex()}"


def environment_for(environ: Mapping[str, str], instance: str) -> dict[str, str]:
    """Return the environment of the hive's children: ours without secrets, tagged with the hive's instance.

    ggml would start a debugger on every failed assertion, which takes seconds and adds a process.
    """
    kept = {k: v for k, v in environ.items() if k not in SECRET_VARIABLES}
    return kept | {INSTANCE_VARIABLE: instance, "GGML_NO_BACKTRACE": "1", "PYTHONUNBUFFERED": "1"}


def start_spare(home: Home) -> Spare | None:
    """Start the process; None if it cannot be, which a real launch will then say."""
    worker_id, instance = new_worker_id(), new_instance()
    try:
        process = start_worker(worker_id, "--spare", instance=instance, home=home)
        return Spare(worker_id, instance, process)
    except OSError:
        return None


def start_worker(worker_id: str, *options: str, instance: str, home: Home) -> "subprocess.Popen[bytes]":
    """Start a worker process that waits for its specification. Raises `OSError`."""
    # -P keeps the working directory off sys.path: nothing is ever imported from where the user happens to stand.
    name = named("llm-worker-rbee")
    argv = [sys.executable, "-P", *name, "-m", "rbee_core.worker", "--worker-id", worker_id, *options]
    return start_process(argv, environment_for(os.environ, instance), home.worker_log(worker_id))


def start_process(argv: list[str], environment: Mapping[str, str], log_path: Path) -> "subprocess.Popen[bytes]":
    """Start `argv` in a session of its own, stdin a pipe, output appended to `log_path`. Raises `OSError`."""
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log_fd, stderr=log_fd, env=dict(environment), start_new_session=True
        )  # fmt: skip
    finally:
        os.close(log_fd)
