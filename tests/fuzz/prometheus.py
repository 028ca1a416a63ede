"""What Prometheus's own tool says of a hive's `GET /metrics`, plain and with vLLM's names, after requests of each fate.

Run as ``python -m tests.fuzz.prometheus``, or `nox -s prometheus`; promtool is in Debian's package prometheus.
Exits with 1 for whatever it minds, but for the colon that is in vLLM's names.
"""

import re
import subprocess
import sys
import urllib.request

from rbee_core import wire
from rbee_core.errors import RbeeError
from tests.bench.measure import exit_with
from tests.fuzz.hive import MODEL, running


def main() -> int:
    minded: list[str] = []
    with running() as hive:
        for model in (MODEL, "scripted:crash_at_token=1", "scripted:no_such_knob=1"):
            try:
                list(hive.client.infer_with_model(wire.PoolInference(model_ref=model, prompt="one two")))
            except RbeeError as error:
                print(f"{model}: {error.code}", file=sys.stderr)
        for query in ("", "?aliases=vllm"):
            with urllib.request.urlopen(f"http://127.0.0.1:{hive.port}/metrics{query}", timeout=30) as answer:
                said = answer.read()
            found = subprocess.run(["promtool", "check", "metrics"], input=said, capture_output=True, check=False)
            lines = (found.stdout + found.stderr).decode().splitlines()
            minded += [
                line for line in lines if not re.fullmatch(r"vllm:\w+ metric names should not contain ':'", line)
            ]
            print(f"{len(said)} bytes{', aliases too' if query else ''} were read")
    print(*minded, f"{len(minded)} things are wrong", sep="\n")
    return 1 if minded else 0


if __name__ == "__main__":
    exit_with(main)
