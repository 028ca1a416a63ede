"""What pytest loads in every environment that has rbee: notices that the kit is asked for, and does nothing otherwise.

`pytest --pyargs rbee_kit` names a package; pytest reads the options of a package's plugin only if that plugin is there
before the command line is parsed. So this module stands in the entry-point group ``pytest11``. It imports nothing of
the kit, which needs pytest-bdd, for people who have pytest and rbee but no use for the kit.
"""

from pathlib import Path

import pytest

PACKAGE = "rbee_kit"


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Turn the package's name into the folder of its features, and load the plugin."""
    if PACKAGE not in args or not early_config.known_args_namespace.pyargs:
        return
    features = feature_folder()
    args[:] = [str(features) if argument == PACKAGE else argument for argument in args]
    # A conftest.py above the features is the one of rbee's own tests, in a clone.
    early_config.known_args_namespace.confcutdir = str(features)
    early_config.pluginmanager.import_plugin("rbee_kit.plugin")


def feature_folder() -> Path:
    """Return where the backend part of the specification is: inside the installed package, or in a clone beside it."""
    package = Path(__file__).parent
    installed = package / "features"
    return installed if installed.is_dir() else package.parent / "features" / "backend"
