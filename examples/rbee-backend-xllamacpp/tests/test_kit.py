"""The kit that rbee publishes for backends, run on this one with a real model."""

import subprocess
import sys


def test_the_contract_is_kept() -> None:
    kit = ["--pyargs", "rbee_kit", "--backend", "xllamacpp", "--model", "smollm2"]
    assert subprocess.run([sys.executable, "-m", "pytest", *kit], check=False).returncode == 0
