"""What the requests of a model share when they choose tokens, made once whoever comes first."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("llguidance")

from rbee_core.backend import GenerateRequest
from rbee_plugins.llamacpp import choosing, native
from rbee_plugins.llamacpp.choosing import Samplers
from rbee_plugins.llamacpp.native import grammar


def test_two_first_grammars_at_the_same_moment_share_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    class Slow:
        def __init__(self, _model: object) -> None:
            with suppress(threading.BrokenBarrierError):
                both.wait(0.2)  # the other one comes now, if it can

    monkeypatch.setattr(grammar, "Grammars", Slow)
    model: Any = object()
    samplers: Any = Samplers(model)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _n: samplers._grammars(), range(2))
    assert one is other


@pytest.mark.parametrize("fields", [{"dry_multiplier": 0.8, "dry_breakers": ("a word",)}, {"regex": "a"}])
def test_whoever_leaves_does_not_wait_for_what_takes_long_to_be_made_ready(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    may_end, left = threading.Event(), threading.Event()
    closed: list[object] = []

    class Slow:
        def __init__(self, *_: object) -> None:
            left.set()
            may_end.wait()

        def close(self) -> None:
            closed.append(self)

    class Model:
        vocabulary_size = 9

    model: Any = Model()
    monkeypatch.setattr(native, "Sampler", Slow)
    samplers = choosing.Samplers(model)
    monkeypatch.setattr(samplers, "_begin", lambda _request: None)
    assert samplers.build(GenerateRequest(prompt="x", **fields), left) is None
    may_end.set()
    samplers.close()
    assert len(closed) == 1, "its sampler was not freed"
