"""What the requests of a model share when they choose tokens, made once whoever comes first."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("llama_cpp")
pytest.importorskip("llguidance")

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
