"""How much memory a loaded worker takes beside what `rbee models show` says it will.

Run as ``python -m tests.bench.estimate [--json] [--model REF]``. Exits with 1 if one is off by more than a quarter.
The prompt fills a good part of the context, so that the cache is really written to.
"""

import argparse
import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

import psutil

from rbee_core import wire
from rbee_core.client import HiveClient
from rbee_kit.program import Home
from rbee_kit.waiting import eventually
from tests.bench.measure import exit_with

CONTEXTS = (512, 4096)
TOLERANCE = 0.25
WORDS_OF_CONTEXT = 0.6


def ready(client: HiveClient, worker_id: str) -> wire.WorkerInfo | None:
    worker = client.worker(worker_id)
    assert worker.state in ("loading", "idle"), worker
    return worker if worker.state == "idle" else None


def measure(client: HiveClient, model: str, context_tokens: int) -> dict[str, Any]:
    """Load a worker, let it work, and compare the most memory it held with the estimate."""
    estimate = client.show_model(model, context_tokens=context_tokens)
    worker_id = client.spawn(wire.SpawnRequest(model_ref=model, context_tokens=context_tokens)).worker_id
    worker = eventually(lambda: ready(client, worker_id), 60, what="the worker is ready")
    assert worker is not None
    process = psutil.Process(worker.pid)
    prompt = "word " * int(context_tokens * WORDS_OF_CONTEXT)
    for _ in client.infer(worker_id, wire.InferenceRequest(prompt=prompt, max_tokens=8)):
        pass
    rss_bytes = process.memory_info().rss
    client.stop_worker(worker_id)
    return {
        "context_tokens": worker.context_tokens,
        "estimate_bytes": estimate.total_bytes,
        "rss_bytes": rss_bytes,
        "ratio": round(rss_bytes / estimate.total_bytes, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="smollm2")
    options = parser.parse_args()
    os.environ["RBEE_PROMPT_CACHE_BYTES"] = "0"  # the estimate counts what may be saved, and nothing has to be here
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder), str(uuid.uuid4()))
        try:
            hive = home.start_hive()
            client = hive.client
            reference = client.download(wire.DownloadRequest(model_ref=options.model)).reference
            results = [measure(client, reference, context) for context in CONTEXTS]
            hive.stop()
        finally:
            home.close()
    fine = all(abs(result["ratio"] - 1) <= TOLERANCE for result in results)
    if options.json:
        print(json.dumps({"model": reference, "tolerance": TOLERANCE, "ok": fine, "results": results}))
    else:
        for result in results:
            sizes = [f"{name} {result[f'{name}_bytes'] / 1e6:.0f} MB" for name in ("estimate", "rss")]
            print(f"context {result['context_tokens']}: {', '.join(sizes)}, ratio {result['ratio']:.2f}")
    return 0 if fine else 1


if __name__ == "__main__":
    exit_with(main)
