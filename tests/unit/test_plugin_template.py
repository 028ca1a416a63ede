"""`rbee plugins new` and `rbee backends`: what they refuse, write and show."""

import json
import tomllib
from pathlib import Path

import pytest

from rbee_core import wire
from rbee_core.backend import Availability, Backend, Device, Engine
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.hive.main import cli as hive
from rbee_core.inventory import as_text, describe_all
from rbee_core.keeper.commands import plugin_template
from rbee_core.keeper.main import run


@pytest.mark.parametrize(
    "name", ["", "Shout", "9bees", "a_b", "a--b", "-a", "a-", "a b", "../x", "é", "x" * 41, "NAME", "a\n"]
)
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="is no name for a backend"):
        plugin_template.check_name(name, ())


@pytest.mark.parametrize("name", ["cuda", "hf", "file", "mine"])
def test_names_that_are_taken_are_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"The name {name} is taken"):
        plugin_template.check_name(name, {"mine"})


def test_n25_the_name_of_an_installed_plugin_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "new", "llamacpp", "--directory", str(tmp_path / "new")]) == 2
    assert "The name llamacpp is taken" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_nothing_of_the_template_is_left_in_the_package(tmp_path: Path) -> None:
    written = plugin_template.write("loud-shout", tmp_path / "new")
    relative = sorted(str(path.relative_to(tmp_path / "new")) for path in written)
    assert relative == [
        ".github/workflows/kit.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/rbee_backend_loud_shout/__init__.py",
        "src/rbee_backend_loud_shout/demo.txt",
        "src/rbee_backend_loud_shout/engine.py",
        "src/rbee_backend_loud_shout/source.py",
        "tests/test_kit.py",
    ]
    assert not [p for p in written if "NAME" in p.read_text() or "MODULE" in p.read_text()]


def test_the_package_has_an_entry_point_and_runs_the_kit(tmp_path: Path) -> None:
    plugin_template.write("loud-shout", tmp_path / "new")
    project = tomllib.loads((tmp_path / "new/pyproject.toml").read_text())["project"]
    assert project["entry-points"]["rbee"] == {"loud-shout": "rbee_backend_loud_shout"}
    kit = plugin_template.commands("loud-shout")[-1]
    assert f"- run: {kit}" in (tmp_path / "new/.github/workflows/kit.yml").read_text()
    assert kit in (tmp_path / "new/README.md").read_text()
    assert '"rbee_kit", "--backend", "loud-shout"' in (tmp_path / "new/tests/test_kit.py").read_text()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RbeeError, match="is there already"):
        plugin_template.write("shout", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["plugins", "new", "shout"]) == 0
    assert (tmp_path / "rbee-backend-shout/pyproject.toml").is_file()
    assert "pytest --pyargs rbee_kit --backend shout --model shout:demo" in capsys.readouterr().out
    assert run(["plugins", "new", "shout"]) == 1
    assert run(["plugins", "new", "llamacpp-cpu"]) == 2
    assert run(["plugins", "new", "Shout"]) == 2


def test_the_list_of_plugins_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "--json"]) == 0
    assert "llamacpp" in {plugin["name"] for plugin in json.loads(capsys.readouterr().out)["plugins"]}


def test_backends_are_listed_by_keeper_and_hive_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backends", "--json"]) == 0
    from_keeper = wire.decode(capsys.readouterr().out.encode(), wire.BackendList)
    assert run(["detect", "--json"], hive) == 0
    from_hive = wire.decode(capsys.readouterr().out.encode(), wire.BackendList)
    names = [backend.name for backend in from_keeper.backends]
    assert "llamacpp-cpu" in names
    assert names == [backend.name for backend in from_hive.backends]


@pytest.mark.parametrize("command", ["backends", "detect"])
def test_backends_for_people(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command]) == 0 if command == "backends" else run([command], hive) == 0
    out = capsys.readouterr().out
    assert "✓ llamacpp-cpu (cpu)\n    device 0: cpu, CPU" in out
    assert "- llamacpp-cuda (cuda)\n    not available: " in out
    assert "reads: gguf; can: batching, cache_types, cancel, chat, " in out


class Gpu(Backend):
    name = "gpu"
    accelerator = "cuda"
    formats = frozenset({"gguf"})

    def __init__(self, device: Device | None) -> None:
        self._device = device

    def availability(self) -> Availability:
        return Availability(usable=self._device is not None, reason="no driver", hint="install one")

    def devices(self) -> list[Device]:
        assert self._device
        return [self._device]

    def load(self, *given: object) -> Engine:
        raise AssertionError(given)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (Device("cuda:0", "RTX", 24_000_000_000, 20_000_000_000), "device 0: cuda:0, RTX, 20.0 of 24.0 GB free"),
        (Device("cuda:0", "RTX", 24_000_000_000), "device 0: cuda:0, RTX, 24.0 GB"),
        (Device("cuda:0", "RTX"), "device 0: cuda:0, RTX"),
        (None, "not available: no driver"),
    ],
)
def test_devices_for_people(device: Device | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = PluginHost({}, [])
    monkeypatch.setattr(host, "backends", lambda: {"gpu": Gpu(device)})
    assert expected in [line.strip() for line in as_text(describe_all(host.candidates()))]


def test_no_backend_at_all() -> None:
    assert "No plugin brings a backend" in next(as_text(()))
