"""Steps about the machine: what it is found fit for, and the memory that is in use."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil
from pytest_bdd import given, then

from rbee_core import wire
from step_defs.support import Hive, Home, Result, eventually
from step_defs.worker import idle_worker

MEGABYTE = 1_000_000
# A worker for the smallest model holds more than this; what else happens on a machine is mostly less.
SHARE = 0.5
PATIENCE_S = 20
LOCKED = ("Mlocked", "Unevictable")


@dataclass(frozen=True)
class Memory:
    """What is in use, in bytes: of the machine's memory without what living processes hold, pages that cannot be moved,
    and of each GPU. What a living process holds is its own: other tests may run beside this one.
    """

    host: int
    locked: int
    devices: tuple[int, ...]

    def back_at(self, before: "Memory", tolerance: int) -> bool:
        locked = self.locked <= before.locked + tolerance
        devices = all(now <= then + tolerance for now, then in zip(self.devices, before.devices, strict=True))
        return self.host <= before.host + tolerance and locked and devices


def in_use() -> Memory:
    memory = psutil.virtual_memory()
    return Memory(memory.total - memory.available - bytes_of_processes(), locked_bytes(), device_bytes())


def bytes_of_processes() -> int:
    """Return what all processes hold for themselves, without files that they look into."""
    total = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            memory = process.memory_info()
            total += memory.rss - getattr(memory, "shared", 0)
    return total


def locked_bytes() -> int:
    """Return the memory that the kernel may not move, where it tells."""
    path = Path("/proc/meminfo")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.partition(":")[0] in LOCKED)


def device_bytes() -> tuple[int, ...]:
    """Return the memory in use on each NVIDIA GPU; nothing where there is none."""
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
            return tuple(int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for handle in handles)
        finally:
            pynvml.nvmlShutdown()
    return ()


def held(home: Home) -> int:
    """Return the resident memory of everything that runs on behalf of this home."""
    total = 0
    for process in home.processes():
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


@given("the memory in use is known", target_fixture="memory_before")
def known_memory() -> Memory:
    return in_use()


@given("a worker for the model that takes its share of memory", target_fixture="share")
def worker_with_share(hive: Hive, model: str, backend: str) -> int:
    worker: wire.WorkerInfo = idle_worker(hive, model, backend)
    share = psutil.Process(worker.pid).memory_info().rss
    assert share > 50 * MEGABYTE
    return share


@then("no process of rbee holds memory")
def nothing_held(home: Home) -> None:
    assert held(home) == 0


@then("the memory in use is back where it was")
def memory_is_back(memory_before: Memory, share: int) -> None:
    tolerance = int(share * SHARE)
    eventually(lambda: in_use().back_at(memory_before, tolerance), PATIENCE_S, what="the memory is free again")


@then("no check has failed")
def no_check_failed(result: Result) -> None:
    assert [line for line in result.stdout.splitlines() if line.startswith("✗")] == []


@then("it says of the backend that it can be used")
def backend_usable(result: Result, backend: str) -> None:
    assert f"✓ Backend {backend}:" in result.stdout


@then("a check has failed and says what to do")
def check_failed(result: Result) -> None:
    lines = result.stdout.splitlines()
    failed = [number for number, line in enumerate(lines) if line.startswith("✗")]
    assert failed
    assert all(lines[number + 1].strip().startswith("→") for number in failed)


@then("a text comes out of what was pulled")
def text_of_pulled(home: Home, backend: str) -> None:
    result = home.rbee("infer", "--quiet", "--backend", backend, "--prompt", "Bees", "--max-tokens", "4")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()
