"""A hive's config.toml: what is settled for single models, and taking the file again while somebody reads a stream."""

import json
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from rbee_core import wire
from rbee_kit.program import Hive, Home
from rbee_kit.waiting import eventually

pytestmark = pytest.mark.scripted

ADA = """
[model.ada]
reference = "scripted:tokens=9"
context_tokens = 600
max_tokens = 2
system_prompt = "be very brief"

[model.bob]
reference = "scripted:tokens=inf;token_ms=20"
context_tokens = 600
"""
HELLO = [wire.ChatMessage(role="user", content="hello")]


@pytest.fixture
def config(home: Home) -> Path:
    home.path.mkdir(parents=True, exist_ok=True)
    file = home.path / "config.toml"
    file.write_text(ADA)
    return file


def ask(hive: Hive, model: str, **fields: Any) -> Generator[list[wire.StreamEvent]]:
    """Ask for a text, over a connection of its own."""
    return hive.connect().infer_with_model(wire.PoolInference(model_ref=model, messages=HELLO, **fields))


def last_word(hive: Hive, model: str, **fields: Any) -> wire.StreamEvent:
    return list(ask(hive, model, **fields))[-1][-1]


def next_token(stream: Generator[list[wire.StreamEvent]]) -> str:
    return next(event.token for group in stream for event in group if event.token)


def contexts(hive: Hive) -> list[int]:
    return sorted(worker.context_tokens for worker in hive.client.list_workers())


def test_what_is_settled_for_a_model_counts_where_a_request_says_nothing(home: Home, config: Path) -> None:
    del config
    hive = home.start_hive()
    end = last_word(hive, "ada")
    assert (end.total_tokens, end.prompt_tokens, end.finish_reason) == (2, 4, "length")
    said = [wire.ChatMessage(role="system", content="no"), *HELLO]
    asked = wire.PoolInference(model_ref="ada", messages=said, max_tokens=5, context_tokens=700)
    end = list(hive.client.infer_with_model(asked))[-1][-1]
    assert (end.total_tokens, end.prompt_tokens) == (5, 2)
    assert last_word(hive, "scripted:tokens=9").total_tokens == 9, "it is settled for who asks by this name"
    assert contexts(hive) == [600, 700, 4096]

    shown = home.rbee("models", "show", "ada")
    assert shown.exit_code == 0, shown.stderr
    assert "600 tokens" in shown.stdout
    assert "max_tokens 2, system_prompt be very brief ([model.ada])" in shown.stdout
    details = json.loads(home.rbee("models", "show", "ada", "--json").stdout)
    assert (details["section"], details["context_tokens"], details["max_tokens"]) == ("ada", 600, 2)


def test_n19_a_changed_file_counts_and_nobodys_stream_ends(home: Home, config: Path) -> None:
    hive = home.start_hive()
    running = ask(hive, "bob")
    next_token(running)
    config.write_text(ADA.replace("600", "800") + "[models]\ncarl = 'scripted:tokens=1'\n")
    taken = home.rbee("hive", "reload")
    assert (taken.exit_code, taken.stdout) == (0, "Changed: models.carl, model.ada, model.bob\n"), taken.stderr
    assert next_token(running)
    assert last_word(hive, "ada").total_tokens == 2
    assert last_word(hive, "carl").total_tokens == 1
    assert next_token(running)
    assert contexts(hive) == [600, 800, 4096]
    running.close()

    config.write_text("idle_timeout_s = 1\n" + ADA.replace("600", "'many'"))
    refused = home.rbee("hive", "reload")
    assert refused.exit_code == 2
    assert "config.toml line 5: [model.ada] context_tokens is wrong: expected `int`" in refused.stderr
    assert last_word(hive, "ada").total_tokens == 2
    assert home.rbee("hive", "status").exit_code == 0

    config.write_text(ADA.replace("600", "800") + "[models]\ncarl = 'scripted:tokens=1'\n")
    assert home.rbee("hive", "reload").stdout == "Nothing changed\n"
    config.write_text("host = '127.0.0.9'\nqueue_limit = 9\n" + ADA.replace("600", "800"))
    told = json.loads(home.rbee("hive", "reload", "--json").stdout)
    assert told == {"changed": ["queue_limit", "models.carl"], "needs_restart": ["host"]}
    assert "config.toml was taken again: changed queue_limit, models.carl; a restart is needed for host" in (
        home.log("hive")
    )


def test_n19_a_hangup_has_a_hive_without_a_terminal_take_its_file_again(home: Home, config: Path) -> None:
    hive = home.start_hive()
    events = hive.connect().events()
    assert isinstance(next(events), wire.PoolSnapshot)
    config.write_text("prot = 1\n")
    hive.program.signal(signal.SIGHUP)
    wrong = "config.toml was not taken: config.toml line 1: prot is no setting; did you mean port?"
    eventually(lambda: wrong in home.log("hive"), what="the wrong file is refused")
    config.write_text("context_tokens = 700\n")
    hive.program.signal(signal.SIGHUP)
    told = next(events)
    assert isinstance(told, wire.SettingsChanged)
    assert (told.number, told.changed, told.needs_restart) == (1, ["context_tokens", "model.ada", "model.bob"], [])
    assert last_word(hive, "scripted:tokens=1").total_tokens == 1
    assert contexts(hive) == [700]
    events.close()


def test_a_wrong_section_is_told_before_a_hive_starts(home: Home, config: Path) -> None:
    config.write_text("[model.ada]\nreference = 'scripted:tokens=1'\nslot = 1\n")
    refused = home.rbee("infer", "--model", "ada", "hello")
    assert refused.exit_code == 2
    assert "config.toml line 3: [model.ada] slot is no setting of a model; did you mean slots?" in refused.stderr
