"""How a llama.cpp worker is tuned: types of keys and values, attention, adapters, texts with a gap."""

import json
import subprocess
import sys
import threading

import pytest

from rbee_core.backend import Adapter, Device, GenerateRequest, LoadOptions, LocalModel, Token, Tuning
from rbee_core.errors import InvalidRequest, ModelLoadFailed
from rbee_plugins.llamacpp import fill_in
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from tests.support.gguf_models import lora, ranker

CPU = Device("cpu", "test")
STORY = GenerateRequest(prompt="Once upon a time", max_tokens=8, temperature=0)
QUERY, WIDTH, QUERY_WIDTH = "blk.0.attn_q.weight", 576, 576


def loaded(model, **tuning):
    options = LoadOptions(context_tokens=512, tuning=Tuning(**tuning))
    return LlamaCppCpu().load(model, CPU, options, lambda *_: True)


def text(engine):
    events = engine.generate(STORY, threading.Event())
    return "".join(event.text for event in events if isinstance(event, Token))


def estimate(model, **tuning):
    tuning = {"prompt_cache_bytes": 0, **tuning}
    return LlamaCppCpu().estimate(model, LoadOptions(context_tokens=8192, tuning=Tuning(**tuning)))


def test_smaller_keys_and_values_take_less_and_say_nearly_the_same(llamacpp):
    whole, half = estimate(llamacpp.model), estimate(llamacpp.model, cache_type_k="q8_0", cache_type_v="q8_0")
    assert half.kv_cache_bytes / whole.kv_cache_bytes == pytest.approx(34 / 64)
    engine = loaded(llamacpp.model, cache_type_k="q8_0", cache_type_v="q8_0", flash_attention=True)
    assert text(engine)
    engine.close()


def test_without_flash_attention_the_scores_of_a_batch_are_counted(llamacpp):
    more = estimate(llamacpp.model, flash_attention=False).compute_bytes - estimate(llamacpp.model).compute_bytes
    assert more == 512 * 8192 * 9 * 4


@pytest.mark.parametrize(
    ("tuning", "why"),
    [
        ({"cache_type_v": "q4_0", "flash_attention": False}, "with flash attention only"),
        ({"cache_type_k": "q8_0"}, "goes by 32 values, and the heads of this model have 16"),
    ],
)
def test_what_llama_cpp_would_refuse_is_refused_before_a_worker_starts(llamacpp, tmp_path, tuning, why):
    narrow = "heads of this model" in why
    path = ranker(tmp_path / "m.gguf") if narrow else llamacpp.model.path
    model = LocalModel("m", path, "gguf", path.stat().st_size)
    options = LoadOptions(tuning=Tuning(**tuning))
    with pytest.raises(InvalidRequest, match=why):
        LlamaCppCpu().estimate(model, options)
    with pytest.raises(InvalidRequest, match=why):
        LlamaCppCpu().load(model, CPU, options, lambda *_: True)


def test_an_adapter_changes_the_text_by_its_scale(llamacpp, tmp_path):
    path = lora(tmp_path / "a.gguf", tensors=(QUERY, "blk.5.attn_q.weight"), shapes=(WIDTH, QUERY_WIDTH))
    without = loaded(llamacpp.model)
    nothing = loaded(llamacpp.model, lora=(Adapter(str(path), 0.0),))
    strong = loaded(llamacpp.model, lora=(Adapter(str(path), 5.0),))
    assert text(nothing) == text(without)
    assert text(strong) != text(without)
    for engine in (without, nothing, strong):
        engine.close()
    more = estimate(llamacpp.model, lora=(Adapter(str(path)),)).weights_bytes - estimate(llamacpp.model).weights_bytes
    assert more == 2 * 4 * (WIDTH + QUERY_WIDTH) * 4


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: lora(path, tensors=(QUERY,), shapes=(64, 64)), "is 576 wide in this one, not 64"),
        (lambda path: lora(path, tensors=("blk.99.attn_q.weight",), shapes=(WIDTH, WIDTH)), "no blk.99.attn_q"),
        (lambda path: lora(path, tensors=(QUERY,), shapes=(WIDTH, WIDTH), architecture="qwen3"), "is for qwen3"),
        (ranker, "is no LoRA adapter"),
    ],
)
def test_an_adapter_of_another_model_is_refused_before_a_worker_starts(llamacpp, tmp_path, make, why):
    path = make(tmp_path / "a.gguf")
    options = LoadOptions(tuning=Tuning(lora=(Adapter(str(path)),)))
    for refuse in (
        lambda: LlamaCppCpu().estimate(llamacpp.model, options),
        lambda: LlamaCppCpu().load(llamacpp.model, CPU, options, lambda *_: True),
    ):
        with pytest.raises(InvalidRequest, match=why):
            refuse()


def test_an_adapter_that_is_not_there_is_told_with_its_path(llamacpp, tmp_path):
    with pytest.raises(ModelLoadFailed, match=r"none\.gguf"):
        estimate(llamacpp.model, lora=(Adapter(str(tmp_path / "none.gguf")),))


def test_a_model_without_marks_for_a_gap_refuses_a_suffix(llamacpp):
    with pytest.raises(InvalidRequest, match="not made to fill in a text"):
        list(llamacpp.engine.generate(GenerateRequest(prompt="def f(", suffix=")"), threading.Event()))


def test_a_gap_is_put_to_the_model_with_its_marks_around_what_is_there():
    class Model:
        fill_in_tokens = (1, 2, 3)

        def adds_bos(self):
            return False

    class Texts:
        def plain(self, text):
            return list(text.decode())

    assert fill_in.tokens(Model(), Texts(), "ab", "cd") == [1, "a", "b", 2, "c", "d", 3]


MEASURE = """
import json, sys, threading, psutil
from pathlib import Path
from rbee_core.backend import EmbedRequest, GenerateRequest, LoadOptions, LocalModel, Tuning
from rbee_plugins.llamacpp.backend import LlamaCppCpu
path, tuning = Path(sys.argv[1]), Tuning(**json.loads(sys.argv[2]))
model, options = LocalModel("m", path, "gguf", path.stat().st_size), LoadOptions(context_tokens=8192, tuning=tuning)
backend = LlamaCppCpu()
estimate = backend.estimate(model, options).total_bytes
before = psutil.Process().memory_info().rss
engine = backend.load(model, backend.devices()[0], options, lambda fraction, detail="": True)
list(engine.generate(GenerateRequest(prompt="hello " * 520, max_tokens=2), threading.Event()))
if tuning.embeddings:
    list(engine.embed(EmbedRequest(("hello " * 500,), "mean"), threading.Event()))
print(json.dumps([estimate, psutil.Process().memory_info().rss - before]))
"""


@pytest.mark.parametrize("tuning", [{"cache_type_k": "q8_0", "cache_type_v": "q8_0"}, {"embeddings": True}])
def test_the_estimate_knows_how_a_worker_is_tuned(llamacpp, tuning):
    tuning = json.dumps({"prompt_cache_bytes": 0, **tuning})  # nothing had to leave yet
    command = [sys.executable, "-c", MEASURE, str(llamacpp.model.path), tuning]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    estimated, measured = json.loads(done.stdout)
    assert 0.75 < measured / estimated < 1.25
