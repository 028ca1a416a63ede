"""Calling plugins from the hive: off the loop, with a deadline, in order, and what comes back is checked."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rbee_core import aio
from rbee_core.backend import Availability, Backend, Device, Estimate, LoadOptions, LocalModel, StopPolicy
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import ModelLoadFailed, PluginFailed, PluginTimeout
from rbee_core.hive.plugin_calls import CALLS_AT_A_TIME, PluginCalls

LONG_S = 60.0
MODEL = LocalModel("m", Path("m"), "gguf", 10)
USUAL = StopPolicy(ask_s=2.0, terminate_s=1.0)


class Driver(Backend):
    """A backend whose every method does `act`, in the thread in which it is called."""

    name, accelerator, formats = "driver", "cpu", frozenset({"gguf"})

    def __init__(self, act: Callable[[], Any] = lambda: None) -> None:
        self._act = act

    def availability(self) -> Availability:
        self._act()
        return Availability(usable=True)

    def devices(self) -> Sequence[Device]:
        return [Device("cpu", "a device")]

    def estimate(self, model: LocalModel, options: LoadOptions) -> Estimate:
        return self._act()

    def environment(self, device: Device) -> Any:
        return self._act()

    def stop_policy(self, recommended: StopPolicy) -> StopPolicy:
        return self._act()

    def load(self, *_: object) -> Any:
        raise AssertionError


def run(work: Callable[[PluginCalls], Awaitable[Any]], limit_s: float = LONG_S, host: PluginHost | None = None) -> Any:
    async def main() -> Any:
        return await work(PluginCalls(host or PluginHost({}, []), limit_s))

    return asyncio.run(main())


def test_a_stranger_is_called_in_another_thread() -> None:
    threads: list[threading.Thread] = []
    driver = Driver(lambda: threads.append(threading.current_thread()))
    [candidate] = run(lambda calls: calls.ask([driver]))
    assert candidate.usable
    assert [d.id for d in candidate.devices] == ["cpu"]
    assert [t is threading.main_thread() for t in threads] == [False]


def test_one_that_hangs_is_late_and_the_others_are_heard() -> None:
    end = threading.Event()
    hanging, good = Driver(lambda: end.wait(LONG_S)), Driver()
    late, usable = run(lambda calls: calls.ask([hanging, good]), limit_s=2.0)
    end.set()
    assert late.late is not None
    assert (late.late.details["plugin"], late.late.details["waited_s"]) == ("driver", 2.0)
    assert usable.usable


def test_a_driver_that_hangs_takes_a_few_threads_and_no_more() -> None:
    end, entered = threading.Event(), []

    def hang() -> None:
        entered.append(1)
        end.wait(LONG_S)

    async def ask_often(calls: PluginCalls) -> None:
        for _ in range(3):
            await calls.ask([Driver(hang)] * CALLS_AT_A_TIME)

    run(ask_often, limit_s=0.1)
    end.set()
    assert len(entered) == CALLS_AT_A_TIME


def raise_it(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (raise_it(ModelLoadFailed(reference="m", why="no model")), ModelLoadFailed),
        (raise_it(RuntimeError("x")), PluginFailed),
        (raise_it(StopIteration()), PluginFailed),
        (raise_it(TimeoutError("its own")), PluginFailed),
        (raise_it(SystemExit(3)), PluginFailed),
        (raise_it(KeyboardInterrupt()), PluginFailed),
        (lambda: None, PluginFailed),
        (lambda: Estimate(1, 1, 1, 1, mapped_bytes=4), PluginFailed),
        (lambda: Estimate(-5, 1, 1, 1), PluginFailed),
        (lambda: Estimate(1, 1, 1, 1, mapped_bytes=-1), PluginFailed),
    ],
)
def test_an_estimate_is_one_or_an_error_of_ours(act: Callable[[], Any], expected: type[Exception]) -> None:
    with pytest.raises(expected):
        run(lambda calls: calls.estimate(Driver(act), MODEL, LoadOptions()))


def test_an_estimate_that_takes_too_long_names_plugin_and_seconds() -> None:
    end = threading.Event()
    with pytest.raises(PluginTimeout, match=r"driver did not answer within 0\.1 s \(estimate\)"):
        run(lambda calls: calls.estimate(Driver(lambda: end.wait(LONG_S)), MODEL, LoadOptions()), limit_s=0.1)
    end.set()


@pytest.mark.parametrize("found", [None, 3, {"A": 1}, {1: "a"}, {"A": None}])
def test_an_environment_is_texts(found: Any) -> None:
    with pytest.raises(PluginFailed):
        run(lambda calls: calls.environment(Driver(lambda: found), Device("cpu", "x")))


@pytest.mark.parametrize("found", [None, 3, StopPolicy(-1, 0), StopPolicy(float("nan"), 0)])
def test_a_stop_policy_that_is_none_is_the_recommended_one(found: Any) -> None:
    assert run(lambda calls: calls.stop_policy(Driver(lambda: found), USUAL)) == USUAL


def test_a_stop_policy_that_raises_or_hangs_is_the_recommended_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee_core.hive.plugin_calls.STOP_POLICY_S", 0.1)
    end = threading.Event()
    for act in (raise_it(RuntimeError("x")), lambda: end.wait(LONG_S)):
        assert run(lambda calls, act=act: calls.stop_policy(Driver(act), USUAL)) == USUAL
    end.set()


class Listeners(PluginHost):
    """A host with these listeners; remembers who was dropped."""

    def __init__(self, **functions: Callable[..., object]) -> None:
        super().__init__({}, [])
        self._functions = functions
        self.dropped: dict[str, BaseException] = {}

    def listeners(self, hook: str) -> list[tuple[str, Callable[..., object]]]:
        return [(name, call) for name, call in self._functions.items() if name not in self.dropped]

    def drop(self, plugin: str, error: BaseException) -> None:
        self.dropped[plugin] = error


def test_a_listener_hears_everything_in_order() -> None:
    heard: list[str] = []

    async def tell(calls: PluginCalls) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(50):
                tasks.create_task(calls.tell("rbee_worker_gone", worker_id=str(number)))

    def listen(worker_id: str) -> None:
        heard.append(worker_id)

    run(tell, host=Listeners(one=listen))
    assert heard == [str(number) for number in range(50)]


def test_a_listener_that_fails_or_hangs_is_dropped_and_others_hear() -> None:
    heard: list[str] = []
    end = threading.Event()

    def listen(worker_id: str) -> None:
        heard.append(worker_id)

    def refuse(worker_id: str) -> None:
        raise ModelLoadFailed(reference=worker_id, why="an error of ours, raised by a stranger")

    host = Listeners(bad=lambda **_: 1 / 0, ours=refuse, slow=lambda **_: end.wait(LONG_S), good=listen)
    run(lambda calls: calls.tell("rbee_worker_gone", worker_id="w1"), limit_s=2.0, host=host)
    end.set()
    assert isinstance(host.dropped["bad"], ZeroDivisionError)
    assert isinstance(host.dropped["ours"], ModelLoadFailed)
    assert "2 s" in str(host.dropped["slow"])
    assert heard == ["w1"]


def test_a_lane_outlives_a_caller_that_left() -> None:
    async def main() -> str:
        lane, end = aio.Lane("test", 1), threading.Event()
        with pytest.raises(aio.DeadlinePassed):
            await lane.call(0.05, end.wait, LONG_S)
        end.set()
        return await lane.call(LONG_S, lambda: "free again")

    assert asyncio.run(main()) == "free again"
