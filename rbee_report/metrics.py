"""Measures one real inference through the command, in a home of its own that is gone afterwards."""

import json
import os
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from rbee_report.report import Metrics

TOKENS = 64
PATIENCE_S = 120.0
# What the keeper calls the phases from the wish for a worker to a loaded model.
LOADING = ("3-5", "6", "7")


def measure(backend: str, model: str) -> Metrics:
    """Run `rbee infer --json` once. Never raises: a failure is part of the answer."""
    command = [
        str(Path(sysconfig.get_path("scripts"), "rbee")), "infer", "--json", "--backend", backend, "--model", model,
        "--max-tokens", str(TOKENS), "--temperature", "0", "--raw", "--prompt", "Once upon a time, in a small village,",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="rbee-metrics-") as folder:
        environment = {**os.environ, "RBEE_HOME": str(Path(folder, "home"))}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
            return read(json.loads(done.stdout))
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            return Metrics(error=f"rbee infer gave no answer: {error}")


def read(answer: dict[str, Any]) -> Metrics:
    """Return the metrics in the object that `rbee infer --json` prints."""
    if "error" in answer:
        return Metrics(error=str(answer["error"].get("message", answer["error"])))
    took = {phase["phase"]: int(phase["duration_ms"]) for phase in answer["phases"]}
    return Metrics(
        tokens=int(answer["tokens"]),
        tokens_per_s=float(answer["generation_tokens_per_s"] or answer["speed_tokens_per_s"]),
        first_token_ms=round(answer["first_token_ms"]),
        load_ms=sum(took.get(phase, 0) for phase in LOADING),
        total_ms=sum(took.values()),
        model=str(answer["model"]),
    )
