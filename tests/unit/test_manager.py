"""The plugin host: a broken plugin is named with its reason, and everybody else works on."""

import sys
import threading
import types
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click
import pytest

from rbee_core.backend import Availability, Backend, Device, Engine, LoadOptions, LocalModel, ModelSource, hookimpl
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import BackendNotAvailable, InvalidRequest


class Fake(Backend):
    """A backend that is only data."""

    capabilities = frozenset({"stream"})

    def __init__(
        self,
        name: str,
        accelerator: str = "cpu",
        formats: Sequence[str] = ("gguf",),
        *,
        priority: int = 0,
        usable: bool = True,
        devices: int = 1,
    ) -> None:
        self.name, self.accelerator, self.formats, self.priority = name, accelerator, frozenset(formats), priority  # pyright: ignore[reportAttributeAccessIssue]
        self._usable, self._devices = usable, devices

    def availability(self) -> Availability:
        return Availability(usable=self._usable, reason="" if self._usable else "no driver", hint="install one")

    def devices(self) -> Sequence[Device]:
        return [Device(f"{self.accelerator}:{n}", "a device") for n in range(self._devices)]

    def load(self, model: LocalModel, device: Device, options: LoadOptions, progress: object) -> Engine:
        raise AssertionError(f"never loaded here: {model} {device} {options} {progress}")


class Source(ModelSource):
    def __init__(self, *schemes: str) -> None:
        self.schemes = frozenset(schemes)

    def resolve(self, reference: object, formats: Sequence[str]) -> LocalModel:
        raise AssertionError(f"never asked here: {reference} {formats}")


Install = Callable[..., EntryPoint]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make an entry point to a module with these members; a string is the module's source."""

    def entry_point(name: str, members: dict[str, object] | str = "", *, module: str = "") -> EntryPoint:
        path = module or f"rbee_test_plugin_{name.replace('-', '_')}"
        plugin = types.ModuleType(path)
        if isinstance(members, dict):
            vars(plugin).update(members)
            monkeypatch.setitem(sys.modules, path, plugin)
        else:
            monkeypatch.setitem(sys.modules, path, Raising(path, members))
        return EntryPoint(name, f"{path}:members" if isinstance(members, str) else path, "rbee")

    return entry_point


class Raising(types.ModuleType):
    """A module whose attribute runs code, as an import would."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__(name)
        self._code = code

    @property
    def members(self) -> object:
        exec(self._code)  # the point of these tests is code that does what it likes
        return types.ModuleType("empty")


def backends(*found: object) -> dict[str, object]:
    """Return a plugin that registers these."""

    @hookimpl
    def rbee_register_backends(register: Callable[[object], None]) -> None:
        for backend in found:
            register(backend)

    return {"rbee_register_backends": rbee_register_backends}


def sources(*found: object) -> dict[str, object]:
    @hookimpl
    def rbee_register_model_sources(register: Callable[[object], None]) -> None:
        for source in found:
            register(source)

    return {"rbee_register_model_sources": rbee_register_model_sources}


def raising(hook: str, error: BaseException) -> dict[str, object]:
    def fail() -> None:
        raise error

    return {hook: hookimpl(fail)}


def misspelled() -> dict[str, object]:
    def rbee_register_backend(register: object) -> None: ...

    return {"rbee_register_backend": hookimpl(rbee_register_backend)}


def wrong_argument() -> dict[str, object]:
    def rbee_register_backends(registrar: object) -> None: ...

    return {"rbee_register_backends": hookimpl(rbee_register_backends)}


def odd(**attributes: object) -> Fake:
    fake = Fake("odd")
    for name, value in attributes.items():
        setattr(fake, name, value)
    return fake


BROKEN: dict[str, tuple[dict[str, object] | str, str]] = {
    "raises at import": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits at import": ("sys.exit(3)", "SystemExit: 3"),
    "raises without words": ("raise KeyError", "KeyError"),
    "misspelled hook": (misspelled(), "unknown hook rbee_register_backend"),
    "wrong argument": (wrong_argument(), "registrar"),
    "raises in a hook": (raising("rbee_register_backends", ValueError("bad day")), "ValueError: bad day"),
    "exits in a hook": (raising("rbee_register_backends", SystemExit(2)), "SystemExit: 2"),
    "raises in the sources hook": (raising("rbee_register_model_sources", OSError("no disk")), "no disk"),
    "registers None": (backends(None), "which is no Backend"),
    "registers a class": (backends(Fake), "which is no Backend"),
    "no name": (backends(Fake("")), "needs a name"),
    "name with a path in it": (backends(Fake("../x")), "needs a name"),
    "no formats": (backends(Fake("x", formats=())), "and formats"),
    "name that is no text": (backends(odd(name=["x"])), "TypeError"),
    "name of an accelerator": (backends(Fake("cuda")), "the backend name cuda is taken"),
    "name of another's": (backends(Fake("good")), "the backend name good is taken"),
    "unknown capability": (backends(odd(capabilities=frozenset({"fly"}))), "unknown capabilities fly"),
    "obeys an unknown field": (backends(odd(obeys=frozenset({"logit_bee"}))), "needs no capability: logit_bee"),
    "obeys no set": (backends(odd(obeys=None)), "TypeError"),
    "capabilities as a list": (backends(odd(capabilities=["stream"])), "TypeError"),
    "source that is none": (sources(object()), "ModelSource"),
    "source without schemes": (sources(type("S", (ModelSource,), {"resolve": None})()), "schemes"),
}


@pytest.mark.parametrize(("plugin", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_plugin_is_named_and_others_work(
    plugin: dict[str, object] | str, reason: str, install: Install
) -> None:
    good = install("good", backends(Fake("good")) | sources(Source("shelf")))
    host = PluginHost({}, [good, install("broken", plugin)])
    reports = {r.name: r for r in host.reports()}
    assert reason in reports["broken"].failure
    assert reports["good"].failure == ""
    assert [c.backend.name for c in host.candidates() if c.usable] == ["good"]
    assert list(host.sources()) == ["shelf"]
    assert host.choose(None, "gguf").name == "good"


def test_a_module_that_is_not_there_is_named() -> None:
    host = PluginHost({}, [EntryPoint("lost", "rbee_no_such_module", "rbee")])
    assert "rbee_no_such_module" in host.reports()[0].failure


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str) -> EntryPoint:
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    return EntryPoint("broken", module, "rbee")


def test_n14_an_import_error_names_file_and_line_and_on_demand_the_way_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = written(tmp_path, monkeypatch, "rbee_broken_import", "x = 1\nimport rbee_no_such_module\n")
    assert "rbee_broken_import.py:2)" in PluginHost({}, [broken]).reports()[0].failure
    assert "Traceback" not in caplog.text
    PluginHost({"RBEE_DEBUG": "1"}, [broken])
    assert "Traceback" in caplog.text


def test_n14_a_syntax_error_names_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = written(tmp_path, monkeypatch, "rbee_broken_syntax", "x = 1\ndef\n")
    assert "rbee_broken_syntax.py:2)" in PluginHost({}, [broken]).reports()[0].failure


def test_n25_rbees_own_backends_keep_their_names_and_the_taker_is_told(install: Install) -> None:
    thief = install("thief", backends(Fake("llamacpp-cpu")))
    own = next(entry for entry in entry_points(group="rbee") if entry.name == "llamacpp")
    reports = {r.name: r for r in PluginHost({}, [thief, own]).reports()}
    assert "llamacpp-cpu" in reports["llamacpp"].backends
    assert reports["thief"].failure == "the backend name llamacpp-cpu is taken by plugin llamacpp"


def test_a_plugin_that_hangs_at_import_is_given_up(install: Install) -> None:
    hanging = install("hanging", "import threading\nthreading.Event().wait(20)")
    good = install("good", backends(Fake("one")))
    host = PluginHost({}, [hanging, good], limit_s=2.0)
    assert "did not end within 2 s" in host.reports()[1].failure
    assert set(host.backends()) == {"one"}


def test_the_second_of_one_name_is_ignored_and_said_so(install: Install) -> None:
    first = install("twin", backends(Fake("one")), module="rbee_twin_1")
    second = install("twin", backends(Fake("two")), module="rbee_twin_2")
    host = PluginHost({}, [first, second])
    assert list(host.backends()) == ["one"]
    assert "a second plugin with this name" in host.reports()[0].failure


def test_reports_say_what_a_plugin_brings(install: Install) -> None:
    entry = install("good", backends(Fake("a"), Fake("b")) | sources(Source("shelf", "attic")))
    report = PluginHost({}, [entry]).reports()[0]
    assert report.hooks == ("rbee_register_backends", "rbee_register_model_sources")
    assert (report.backends, report.sources) == (["a", "b"], ["attic", "shelf"])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"a", "b", "c"}),
        ({"RBEE_DISABLE_PLUGINS": "a, c"}, {"b"}),
        ({"RBEE_LOAD_PLUGINS": "a,b"}, {"a", "b"}),
        ({"RBEE_LOAD_PLUGINS": "a,b", "RBEE_DISABLE_PLUGINS": "b"}, {"a"}),
        ({"RBEE_LOAD_PLUGINS": "nobody"}, set()),
        ({"RBEE_LOAD_PLUGINS": " ", "RBEE_DISABLE_PLUGINS": ","}, {"a", "b", "c"}),
    ],
)
def test_variables_choose_plugins(environ: dict[str, str], expected: set[str], install: Install) -> None:
    host = PluginHost(environ, [install(name, backends(Fake(name))) for name in "abc"])
    assert set(host.backends()) == expected


def test_a_disabled_plugin_is_not_even_imported(install: Install) -> None:
    bad = install("bad", "raise RuntimeError")
    assert PluginHost({"RBEE_DISABLE_PLUGINS": "bad"}, [bad]).reports() == []


def test_a_source_s_scheme_belongs_to_the_first(install: Install) -> None:
    first, second = Source("shelf"), Source("shelf", "attic")
    found = PluginHost({}, [install("a", sources(first)), install("b", sources(second))]).sources()
    assert found == {"shelf": first, "attic": second}


def test_a_listener_that_failed_is_dropped_and_what_it_registered_stays(install: Install) -> None:
    heard: list[str] = []

    def listen(worker_id: str) -> None:
        heard.append(worker_id)

    bad = install("bad", raising("rbee_worker_gone", RuntimeError("x")) | backends(Fake("running")))
    host = PluginHost({}, [bad, install("good", {"rbee_worker_gone": hookimpl(listen)})])
    assert set(host.backends()) == {"running"}
    host.drop("bad", RuntimeError("x"))
    assert [name for name, _ in host.listeners("rbee_worker_gone")] == ["good"]
    for _, call in host.listeners("rbee_worker_gone"):
        call(worker_id="w1", reason="why")
    assert heard == ["w1"]
    assert set(host.backends()) == {"running"}, "workers may run on it"
    assert "RuntimeError" in {r.name: r for r in host.reports()}["bad"].failure


@pytest.mark.parametrize(
    "second",
    [
        backends(Fake("first"), Fake("../x")),
        backends(Fake("first"), Fake("first")),
        sources(Source("shelf"), object()),
        backends(Fake("first")) | sources(object()),
        backends(Fake("first")) | raising("rbee_register_model_sources", ValueError("bad day")),
    ],
    ids=["bad name", "same name", "no source", "bad source after a backend", "raises after a backend"],
)
def test_a_plugin_that_fails_at_its_second_thing_brings_nothing(second: dict[str, object], install: Install) -> None:
    host = PluginHost({}, [install("half", second), install("good", backends(Fake("good")))])
    half = {r.name: r for r in host.reports()}["half"]
    assert half.failure
    assert (half.backends, half.sources) == ([], [])
    assert (set(host.backends()), set(host.sources())) == ({"good"}, set())


def test_a_hook_that_registers_and_then_raises_leaves_nothing_to_the_next(install: Install) -> None:
    @hookimpl
    def rbee_register_backends(register: Callable[[object], None]) -> None:
        register(Fake("orphan"))
        raise ValueError("bad day")

    bad = install("bad", {"rbee_register_backends": rbee_register_backends})
    host = PluginHost({}, [bad, install("good", backends(Fake("good")))])
    assert set(host.backends()) == {"good"}


def test_a_hook_that_hangs_is_given_up(install: Install) -> None:
    end = threading.Event()

    @hookimpl
    def rbee_register_backends() -> None:
        end.wait(20)

    hanging = install("hanging", {"rbee_register_backends": rbee_register_backends})
    host = PluginHost({}, [hanging, install("good", backends(Fake("good")))], limit_s=2.0)
    assert set(host.backends()) == {"good"}
    assert "rbee_register_backends did not end within 2 s" in host.reports()[1].failure
    end.set()


def test_plugins_add_commands(install: Install) -> None:
    def rbee_add_commands(group: click.Group) -> None:
        group.add_command(click.Command("buzz"))

    group = click.Group()
    host = PluginHost({}, [install("bee", {"rbee_add_commands": hookimpl(rbee_add_commands)})])
    host.add_commands(group)
    assert list(group.commands) == ["buzz"]


# Choosing a backend.


@pytest.fixture
def host(install: Install) -> PluginHost:
    found = [
        Fake("slow-cpu", formats=["gguf"], priority=-1),
        Fake("fast-cpu", formats=["gguf", "mlx"]),
        Fake("gpu", "cuda", usable=False, priority=10),
        Fake("bare", "metal", devices=0, priority=10),
        Fake("apple", "metal", formats=["mlx"], usable=False, priority=5),
    ]
    return PluginHost({}, [install("all", backends(*found))])


@pytest.mark.parametrize(
    ("wanted", "model_format", "chosen"),
    [
        (None, "gguf", "fast-cpu"),
        (None, "mlx", "fast-cpu"),
        (None, None, "fast-cpu"),
        ("cpu", "gguf", "fast-cpu"),
        ("slow-cpu", "gguf", "slow-cpu"),
        ("slow-cpu", None, "slow-cpu"),
    ],
)
def test_choose(wanted: str | None, model_format: str | None, chosen: str, host: PluginHost) -> None:
    assert host.choose(wanted, model_format).name == chosen


@pytest.mark.parametrize(("wanted", "label"), [("gpu", "gpu"), ("cuda", "CUDA"), ("bare", "bare"), ("metal", "METAL")])
def test_what_cannot_run_here_is_an_error_and_never_another_backend(wanted: str, label: str, host: PluginHost) -> None:
    with pytest.raises(BackendNotAvailable, match=f"Backend {label} is not available") as caught:
        host.choose(wanted, "gguf")
    assert "fast-cpu, slow-cpu" in caught.value.hint
    assert caught.value.details["available"] == ["fast-cpu", "slow-cpu"]


def test_unavailable_says_why_and_what_helps(host: PluginHost) -> None:
    with pytest.raises(BackendNotAvailable, match="no driver") as caught:
        host.choose("gpu", "gguf")
    assert caught.value.hint.startswith("install one")
    with pytest.raises(BackendNotAvailable, match="it found no device"):
        host.choose("bare", None)


def test_an_unknown_name_lists_the_known_ones(host: PluginHost) -> None:
    with pytest.raises(InvalidRequest, match="Invalid backend: quantum") as caught:
        host.choose("quantum", "gguf")
    assert caught.value.details["valid"] == sorted(
        ["slow-cpu", "fast-cpu", "gpu", "bare", "apple", "cpu", "cuda", "metal"]
    )


def test_a_format_that_the_wanted_backend_does_not_read(host: PluginHost) -> None:
    with pytest.raises(InvalidRequest, match="Backend slow-cpu reads gguf, the model is mlx"):
        host.choose("slow-cpu", "mlx")


def test_a_format_that_nobody_reads(host: PluginHost) -> None:
    with pytest.raises(BackendNotAvailable, match="no installed backend reads onnx"):
        host.choose(None, "onnx")


def test_an_accelerator_that_no_plugin_provides(install: Install) -> None:
    host = PluginHost({}, [install("only", backends(Fake("one")))])
    with pytest.raises(BackendNotAvailable, match="Backend CUDA is not available: no plugin provides it"):
        host.choose("cuda", "gguf")


def test_no_backend_at_all() -> None:
    with pytest.raises(BackendNotAvailable) as caught:
        PluginHost({}, []).choose(None, "gguf")
    assert "no backend is available here" in caught.value.hint


@pytest.mark.parametrize("method", ["availability", "devices"])
def test_a_backend_whose_check_raises_is_not_usable(method: str, install: Install) -> None:
    def fail() -> None:
        raise RuntimeError("driver exploded")

    host = PluginHost({}, [install("x", backends(odd(**{method: fail}), Fake("good")))])
    assert [c.backend.name for c in host.candidates() if c.usable] == ["good"]
    with pytest.raises(BackendNotAvailable, match="its check failed with RuntimeError: driver exploded"):
        host.choose("odd", "gguf")
