"""A model whose worker is being prepared is in use, though no worker holds it yet."""

import threading
from pathlib import Path

import pytest

from rbee_core import wire
from rbee_core.errors import RemoteError
from rbee_kit.program import Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted


def test_removal_does_not_take_a_model_from_a_spawn_on_its_way(home: Home, tmp_path: Path) -> None:
    go_on = tmp_path / "go"
    reference = f"scripted:estimate_until={go_on}"
    hive = home.start_hive()
    spawned: list[str] = []

    def spawn() -> None:
        spawned.append(client.spawn(wire.SpawnRequest(model_ref=reference)).worker_id)

    client = hive.connect()
    asking = threading.Thread(target=spawn)
    asking.start()
    try:
        eventually(go_on.with_suffix(".asked").exists, 60, what="the worker's memory is being estimated")

        with pytest.raises(RemoteError) as caught:
            hive.client.remove_model(reference)
        assert caught.value.code == "MODEL_IN_USE"
    finally:
        go_on.touch()
        asking.join(60)

    assert len(spawned) == 1
    hive.client.stop_worker(spawned[0])
    assert hive.client.remove_model(reference).reference == reference
