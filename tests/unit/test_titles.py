"""M1: what a process is called in `ps`."""

import subprocess
import sys

import pytest

from rbee_core import wire
from rbee_core.titles import named, show_as
from rbee_core.worker.program import title

SHOW = """
import sys
from rbee_core.titles import show_as
show_as(sys.argv[1])
print(open("/proc/self/comm").read().rstrip())
print(open("/proc/self/cmdline", "rb").read().partition(b"\\0")[0].decode("utf-8", "replace"))
"""


def shown(wanted: str) -> list[str]:
    argv = [sys.executable, "-P", *named("anything"), "-c", SHOW, wanted]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
def test_m1_ps_and_top_show_the_title() -> None:
    assert shown("llm-worker-rbee smollm2 cuda:0") == ["llm-worker-rbee", "llm-worker-rbee smollm2 cuda:0"]
    [first, whole] = shown("x" * 5000)
    assert first == "x" * 15
    assert set(whole) == {"x"}


def test_where_nothing_can_be_shown_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    show_as("rbee-hive")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("pkg:demo/smollm2.gguf", "smollm2"),
        ("file:/home/me/secret plans/a b.gguf", "a b"),
        ("hf:org/repo:Q4_K_M", "repo:Q4_K_M"),
        ("text:bees", "bees"),
        ("file:/x/\x1b[2J.gguf", "\N{REPLACEMENT CHARACTER}[2J"),
        ("file:/x/" + "m" * 500, "m" * 59 + "…"),
    ],
)
def test_m1_a_worker_is_called_by_its_model_and_device_and_no_folder_is_named(reference: str, words: str) -> None:
    spec = wire.WorkerSpec(
        worker_id="worker-1", secret="s", hive_url="", hive_pid=1, reference=reference, path="/x", format="gguf",
        size_bytes=1, backend="b", device="cuda:0",
    )  # fmt: skip
    assert title(spec) == f"llm-worker-rbee {words} cuda:0 worker-1"
