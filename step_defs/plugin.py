"""Steps about plugins, installed and broken."""

from pathlib import Path

from pytest_bdd import given, parsers, then

from step_defs.support import Home, Result

# What a broken plugin does, and the module that does it.
BROKEN = {
    "raises when imported": "raise ValueError('on purpose')",
    "leaves when imported": "raise SystemExit('on its way out')",
    "is not there": None,
    "has a hook nobody knows": (
        "from rbee_core.backend import hookimpl\n@hookimpl\ndef rbee_register_backend(register): pass"
    ),
    "registers no backend": (
        "from rbee_core.backend import hookimpl\n@hookimpl\ndef rbee_register_backends(register): register(42)"
    ),
}


@given(parsers.parse("a plugin that {fault}"))
def broken_plugin(home: Home, tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "plugins"
    metadata = folder / "broken-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[rbee]\nbroken = broken_plugin\n")
    if (source := BROKEN[fault]) is not None:
        (folder / "broken_plugin.py").write_text(source)
    home.use_plugins_in(folder)


@given(parsers.parse('plugin "{name}" is switched off'))
def plugin_off(home: Home, name: str) -> None:
    home.environment["RBEE_DISABLE_PLUGINS"] = name


@then(parsers.parse('it says why "{name}" failed: "{reason}"'))
def says_why(result: Result, name: str, reason: str) -> None:
    assert any(line.startswith(f"✗ {name}: ") and reason in line for line in result.stdout.splitlines())


@then("the backend still works")
def backend_works(home: Home, model: str) -> None:
    assert home.rbee("infer", "--model", model, "--prompt", "Hello", "--max-tokens", "2").exit_code == 0
