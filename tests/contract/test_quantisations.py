"""llama.cpp with the types of weights that people load, made here of the one model that a package ships."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rbee_core.backend.gguf import read_header
from tests.contract.conftest import CACHE, missing

MAKER = Path(__file__).parents[2] / "scripts" / "make_gguf_model.py"
BITS = {"Q4_K_M": (5, 7), "Q5_K_M": (5.5, 7.5), "Q8_0": (8, 9), "F16": (15.9, 16.2)}
"""Of each type, how many bits a weight takes. This model's rows are too short for K: parts of it fall back to more."""

ANSWER = """
import json, sys, threading, psutil
from pathlib import Path
from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel, Token, Tuning
from rbee_plugins.llamacpp.backend import LlamaCppCpu
path = Path(sys.argv[1])
model, nothing_saved = LocalModel("m", path, "gguf", path.stat().st_size), Tuning(prompt_cache_bytes=0)
options = LoadOptions(context_tokens=2048, tuning=nothing_saved)
backend = LlamaCppCpu()
estimate = backend.estimate(model, options).total_bytes
before = psutil.Process().memory_info().rss
engine = backend.load(model, backend.devices()[0], options, lambda fraction, detail="": True)
request = GenerateRequest(prompt="The capital of France is", max_tokens=6, temperature=0)
answer = "".join(e.text for e in engine.generate(request, threading.Event()) if isinstance(e, Token))
print(json.dumps([estimate, psutil.Process().memory_info().rss - before, answer]))
"""


@pytest.fixture(params=list(BITS))
def quantised(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """A type and a model of it; made once and kept, as the twin of the MLX tests is."""
    if why := missing("llamacpp-cpu"):
        pytest.skip(why)
    version = hashlib.sha256(MAKER.read_bytes()).hexdigest()[:8]
    path = CACHE / f"smollm2-135m-{version}.{request.param}.gguf"
    subprocess.run([sys.executable, str(MAKER), str(path), request.param], check=True, capture_output=True, timeout=120)
    return request.param, path


def test_m14_each_type_of_weights_loads_answers_and_takes_what_was_estimated(quantised: tuple[str, Path]) -> None:
    kind, path = quantised
    header = read_header(path, "test")
    lowest, highest = BITS[kind]
    assert lowest < header.tensor_bytes * 8 / 134_515_008 < highest
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    estimate, measured, answer = json.loads(done.stdout)
    assert "Paris" in answer
    assert 0.75 < measured / estimate < 1.25, (estimate, measured)
