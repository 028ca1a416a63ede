"""A worker that is stopped leaves its prompts to the next one, if and only if the settings say so."""

import random
import stat
from pathlib import Path

from rbee_core import wire
from rbee_kit.program import Hive, Home
from tests.support.gguf_models import windowed

LETTERS = "".join(random.Random(1).choice("abcdefgh") for _ in range(700))


def asked(hive: Hive, model: Path) -> tuple[int, str]:
    """Ask once and stop the worker; return how much of the prompt was there, and why not more."""
    question = wire.PoolInference(model_ref=f"file:{model}", prompt=LETTERS, max_tokens=2, temperature=0.0)
    last = [event for group in hive.client.infer_with_model(question) for event in group][-1]
    [worker] = [w for w in hive.client.list_workers() if w.state in ("idle", "busy")]
    hive.client.stop_worker(worker.worker_id)
    return last.cached_tokens or 0, last.not_cached or ""


def test_a_worker_goes_on_from_what_the_last_one_had_where_that_is_wanted(home: Home, tmp_path: Path) -> None:
    model, prompts = windowed(tmp_path / "m.gguf"), home.path / "prompts"
    home.environment["RBEE_PROMPT_CACHE_ON_DISK_BYTES"] = "100000000"
    hive = home.start_hive()
    assert asked(hive, model) == (0, "")
    left = [*prompts.iterdir()]
    assert left
    assert {stat.S_IMODE(path.stat().st_mode) for path in left} == {0o600}
    assert stat.S_IMODE(prompts.stat().st_mode) == 0o700
    cached, why = asked(hive, model)
    assert cached > len(LETTERS) // 2
    assert why == ""
    hive.stop()
    del home.environment["RBEE_PROMPT_CACHE_ON_DISK_BYTES"]
    hive = home.start_hive()
    assert not prompts.exists(), "a hive that may keep nothing removes what is there"
    assert asked(hive, model) == (0, "")
    assert not prompts.exists()
