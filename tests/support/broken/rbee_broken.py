"""Backends that break their contract, each in one way. They run scripts, like the backend they are made from.

A driver hangs while the file that `RBEE_BROKEN` names exists, for `HANG_S` at most.
"""

import math
import os
import time
import types
from collections.abc import Callable
from pathlib import Path

from rbee_scripted import ScriptedBackend

from rbee_core.backend import Availability, Device, Estimate, StopPolicy, hookimpl

HANG_S = 30.0


def hang() -> None:
    until = time.monotonic() + HANG_S
    while Path(os.environ["RBEE_BROKEN"]).exists() and time.monotonic() < until:
        time.sleep(0.05)


class Broken(ScriptedBackend):
    priority = -50


class HangingDriver(Broken):
    name = "hanging-driver"

    def availability(self) -> Availability:
        hang()
        return super().availability()


class HangingEstimate(Broken):
    name = "hanging-estimate"

    def estimate(self, model, options) -> Estimate:
        hang()
        return super().estimate(model, options)


class LostDevice(Broken):
    """Its device is there in the hive and gone in the worker."""

    name = "lost-device"

    def devices(self):
        return [] if "RBEE_BROKEN_WORKER" in os.environ else [Device("card:0", "a card that falls off the bus")]

    def environment(self, device):
        return {"RBEE_BROKEN_WORKER": "1"}


class WrongEnvironment(Broken):
    name = "wrong-environment"

    def environment(self, device):
        return {"NUMBER": 1}


class WrongEstimate(Broken):
    name = "wrong-estimate"

    def estimate(self, model, options) -> Estimate:
        return Estimate(1, 1, 1, 1, mapped_bytes=100)


class HangingStop(Broken):
    name = "hanging-stop"

    def stop_policy(self, recommended: StopPolicy) -> StopPolicy:
        time.sleep(HANG_S)
        return StopPolicy(math.inf, math.inf)


@hookimpl
def rbee_register_backends(register: Callable[[object], None]) -> None:
    for backend in (HangingDriver, HangingEstimate, LostDevice, WrongEnvironment, WrongEstimate, HangingStop):
        register(backend())


@hookimpl
def rbee_worker_ready(worker_id: str) -> None:
    hang()


class First(Broken):
    name = "half-first"


class Second(Broken):
    name = "NO NAME"


half = types.SimpleNamespace(rbee_register_backends=hookimpl(lambda register: [register(First()), register(Second())]))
