"""Every decision about NVIDIA GPUs, on answers as NVML gives them."""

import re
import sys
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from rbee_core.backend import Device
from rbee_plugins import nvml

GB = 1 << 30


class NVMLError(Exception):
    pass


@dataclass
class Recorded:
    """A machine's answers in place of the module `pynvml`; an answer that is an exception is raised."""

    cards: list[dict] = field(default_factory=list)
    init: Exception | None = None
    count: Exception | None = None
    open: int = 0
    NVMLError = NVMLError

    def nvmlInit(self):  # noqa: N802
        if self.init:
            raise self.init
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self):  # noqa: N802
        if self.count:
            raise self.count
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.cards[index]

    def _answer(self, card, key):
        if isinstance(card[key], Exception):
            raise card[key]
        return card[key]

    def nvmlDeviceGetUUID(self, card):  # noqa: N802
        return self._answer(card, "uuid")

    def nvmlDeviceGetName(self, card):  # noqa: N802
        return self._answer(card, "name")

    def nvmlDeviceGetMemoryInfo(self, card):  # noqa: N802
        return self._answer(card, "memory")


def card(uuid="GPU-aaaa1111", name="NVIDIA GeForce RTX 4090", total=24 * GB, free=20 * GB):
    return {"uuid": uuid, "name": name, "memory": SimpleNamespace(total=total, free=free, used=total - free)}


TWO = [card(), card("GPU-bbbb2222", "NVIDIA RTX A2000", 6 * GB, 5 * GB)]


def gpus(*cards, **answers):
    recorded = Recorded(list(cards), **answers)
    return lambda: nvml.gpus(lambda: recorded)


def test_gpus_are_listed_with_their_memory():
    recorded = Recorded(TWO)
    assert nvml.gpus(lambda: recorded) == [
        nvml.Gpu(0, "GPU-aaaa1111", "NVIDIA GeForce RTX 4090", 24 * GB, 20 * GB),
        nvml.Gpu(1, "GPU-bbbb2222", "NVIDIA RTX A2000", 6 * GB, 5 * GB),
    ]
    assert recorded.open == 0, "NVML was left open"


def test_older_libraries_answer_in_bytes():
    assert gpus(card(b"GPU-aaaa1111", b"Tesla T4"))()[0].name == "Tesla T4"


def test_a_lost_gpu_hides_no_other_and_numbers_stay():
    lost = card() | {"name": NVMLError("GPU is lost")}
    assert [g.index for g in gpus(lost, TWO[1])()] == [1]


def test_a_gpu_without_memory_of_its_own_shares_the_hosts():
    (device,) = nvml.devices(gpus(card() | {"memory": NVMLError("Not Supported")}), {})
    assert (device.total_bytes, device.free_bytes, device.shares_host_memory) == (None, None, True)


def test_devices_keep_nvmls_numbers():
    devices = nvml.devices(gpus(*TWO), {"CUDA_VISIBLE_DEVICES": "GPU-bbbb2222"})
    assert devices == [
        Device("cuda:1", "NVIDIA RTX A2000", 6 * GB, 5 * GB, shares_host_memory=False, driver_id="GPU-bbbb2222")
    ]


@pytest.mark.parametrize(
    ("value", "visible"),
    [
        ("0,1", [0, 1]),
        ("1,0", [1, 0]),
        (" 1 ", [1]),
        ("GPU-bb", [1]),
        ("GPU-bbbb2222,0", [1, 0]),
        ("0,7,1", [0]),
        ("-1", []),
        ("", []),
        ("NoDevFiles", []),
        ("GPU-cccc", []),
    ],
)
def test_what_the_user_hides_stays_hidden(value, visible):
    assert [g.index for g in nvml.permitted(gpus(*TWO)(), {"CUDA_VISIBLE_DEVICES": value})] == visible


def test_without_the_variable_all_are_visible():
    assert len(nvml.permitted(gpus(*TWO)(), {})) == 2


def test_a_device_is_usable():
    assert nvml.availability(gpus(*TWO), {}).usable


@pytest.mark.parametrize(
    ("asked", "environ", "reason"),
    [
        (gpus(init=NVMLError("NVML Shared Library Not Found")), {}, "driver cannot be used .*Not Found"),
        (gpus(init=NVMLError("Driver/library version mismatch")), {}, "driver cannot be used .*mismatch"),
        (gpus(count=NVMLError("Insufficient Permissions")), {}, "does not count .*Permissions"),
        (gpus(), {}, "finds no device"),
        (gpus(*TWO), {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES hides"),
    ],
)
def test_what_is_missing_is_told_apart(asked, environ, reason):
    answer = nvml.availability(asked, environ)
    assert not answer.usable
    assert "CUDA" in answer.reason
    assert answer.hint
    assert re.search(reason, answer.reason)
    assert nvml.devices(asked, environ) == []


def test_a_missing_package_is_told_apart(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in nvml.availability(nvml.gpus, {}).reason


def test_a_worker_sees_its_gpu_by_uuid():
    device = nvml.devices(gpus(*TWO), {})[1]
    environment = nvml.environment(device)
    assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-bbbb2222"}
    assert nvml.devices(gpus(*TWO), environment) == [device], "the worker must find its device under the same name"


def test_a_gpu_that_went_away_leaves_the_worker_none():
    assert nvml.environment(Device("cuda:1", "gone")) == {"CUDA_VISIBLE_DEVICES": ""}
    assert nvml.devices(gpus(), {"CUDA_VISIBLE_DEVICES": ""}) == []


def test_this_machine_answers_quickly():
    started = time.process_time()
    nvml.availability(nvml.gpus, {})
    assert time.process_time() - started < 1
