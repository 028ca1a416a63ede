"""What is llama.cpp's own in its engine; what all engines promise is in test_engine.py."""

import json
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from rbee_core.backend import (
    Device,
    Finished,
    GenerateRequest,
    LoadOptions,
    LocalModel,
    Message,
    PromptDone,
    PromptProgress,
    Token,
)
from rbee_core.backend.templates import ChatTemplate
from rbee_core.errors import InvalidRequest, ModelLoadFailed, PromptTooLong
from rbee_plugins.llamacpp import memory
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from rbee_plugins.llamacpp.splitting import PIECE_BYTES
from tests.contract.conftest import CONTEXT
from tests.support.gguf_files import Gguf

CPU = Device("cpu", "test")
STORY = GenerateRequest(prompt="Once upon a time", max_tokens=12, temperature=0)
QUESTION = (Message("user", "What is the capital of France?"),)


class CancelAtCall:
    """Turns true at its n-th question, and counts on."""

    def __init__(self, call: int) -> None:
        self.left = call

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


def local(path: Path) -> LocalModel:
    return LocalModel("pkg:test/model", path, "gguf", path.stat().st_size)


def accept(_fraction: float, _detail: str = "") -> bool:
    return True


@pytest.fixture
def engine(llamacpp):
    return llamacpp.engine


@pytest.fixture
def model(llamacpp):
    return llamacpp.model


def events(engine, request, cancel=None):
    return list(engine.generate(request, cancel or threading.Event()))


def test_a_refused_conversation_is_the_askers_error(engine, monkeypatch):
    with closing(ChatTemplate("{{ raise_exception('no system role') }}")) as template:
        monkeypatch.setattr(engine, "_chat", template)
        with pytest.raises(InvalidRequest, match="no system role"):
            events(engine, GenerateRequest(messages=QUESTION))
    monkeypatch.setattr(engine, "_chat", ChatTemplate(""))
    with pytest.raises(InvalidRequest, match="no chat template"):
        events(engine, GenerateRequest(messages=QUESTION))


def test_a_template_that_never_ends_ends_its_request_and_no_other(engine, monkeypatch):
    monkeypatch.setattr("rbee_core.backend.templates.SECONDS", 0.2)
    alone = events(engine, STORY)
    running = engine.generate(STORY, threading.Event())
    begun = next(running)
    with closing(ChatTemplate("{{ 9 ** 999999999 }}")) as template:
        monkeypatch.setattr(engine, "_chat", template)
        with pytest.raises(InvalidRequest, match="The model's chat template was given up"):
            events(engine, GenerateRequest(messages=QUESTION))
    texts = [[e for e in found if isinstance(e, Token | Finished)] for found in (alone, [begun, *running])]
    assert texts[0] == texts[1]


ALPHABET = "The alphabet: A, B, C, D, E, F, G,"
SURE = {"max_tokens": 4, "temperature": 0.01}  # as good as greedy, without being that


def cached(engine, prompt, **wanted):
    """Return how many tokens of a prompt were computed for an earlier request, and why not more."""
    request = GenerateRequest(prompt=prompt, **SURE | wanted)
    [told] = [event for event in events(engine, request) if isinstance(event, PromptDone)]
    return told.cached_tokens, told.not_cached


def written(engine, prompt, **wanted):
    return "".join(
        e.text for e in events(engine, GenerateRequest(prompt=prompt, **SURE | wanted)) if isinstance(e, Token)
    )


def test_what_a_prompt_shares_with_an_earlier_request_is_not_computed_again(engine):
    first = written(engine, ALPHABET, seed=1)
    count = len(engine._model.tokenize(ALPHABET, add_special=True))
    assert cached(engine, ALPHABET) == (count - 1, "")
    assert written(engine, ALPHABET) == first
    longer = ALPHABET + first + " and so on to"
    again = written(engine, longer)
    assert cached(engine, longer)[0] > count
    assert written(engine, longer, seed=1) == again


def test_what_differs_early_says_where(engine):
    written(engine, ALPHABET, max_tokens=1)
    told = cached(engine, ALPHABET.replace("G,", "Q,") + " and more")
    assert told[0] > 0
    assert told[1] == f"differs at token {told[0]}"


@pytest.mark.parametrize("fixed", [{"seed": 5}, {"reuse_prompt": False}])
def test_who_wants_all_of_the_prompt_computed_gets_that(engine, fixed):
    for _ in range(2):
        assert cached(engine, ALPHABET, **fixed) == (0, "asked not to")


def test_another_prompt_after_a_cancelled_one_is_not_disturbed(engine):
    expected = written(engine, ALPHABET, seed=1)
    stopped = GenerateRequest(prompt=ALPHABET + " hello" * 900, max_tokens=4)
    assert events(engine, stopped, CancelAtCall(60)) == []
    assert written(engine, ALPHABET) == expected
    story = engine.generate(GenerateRequest(prompt=ALPHABET, max_tokens=50), threading.Event())
    for _ in range(9):
        next(story)
    story.close()
    assert written(engine, ALPHABET) == expected


def test_n1_a_long_prompt_tells_between_its_chunks_how_far_it_is(engine):
    from rbee_plugins.llamacpp.engine import ALONE_TOKENS

    prompt = "hello " * 100
    total = len(engine._model.tokenize(prompt, add_special=True))
    found = events(engine, GenerateRequest(prompt=prompt, max_tokens=1, seed=1))
    assert found[: found.index(PromptDone(total, 0, "asked not to"))] == [
        PromptProgress(n, total) for n in range(ALONE_TOKENS, total, ALONE_TOKENS)
    ]


@pytest.mark.parametrize(("weights_bytes", "tokens"), [(0, 512), (4_000_000_000, 512), (40_000_000_000, 64)])
def test_n1_a_large_model_on_a_processor_gives_a_sign_of_life_after_fewer_tokens(weights_bytes, tokens):
    header = SimpleNamespace(tensor_bytes=weights_bytes)
    assert memory.chunk_tokens(header, on_cpu=True) == tokens
    assert memory.chunk_tokens(header, on_cpu=False) == 512


def test_a2_a_prompt_that_cannot_fit_is_refused_before_it_is_tokenised(engine, monkeypatch):
    monkeypatch.setattr(engine._model, "tokenize", None)
    with pytest.raises(PromptTooLong) as caught:
        events(engine, GenerateRequest(prompt="<|im_start|>a " * 130_000, max_tokens=1))
    assert caught.value.details["context_tokens"] == CONTEXT
    assert CONTEXT < caught.value.details["prompt_tokens"] <= 130_000 * 3
    assert "at least" in caught.value.message


def test_a2_the_tokens_of_a_long_prompt_are_those_of_the_whole(engine):
    text = b"<|im_start|>user\nThe  bees, \xf0\x9f\x90\x9d\n<|im_end|>\n " * 900
    assert len(text) > 2 * PIECE_BYTES
    whole = engine._model.tokenize(text, add_special=True)
    assert engine._tokens.of(text, threading.Event(), add_special=True) == whole


def test_a2_cancel_ends_the_tokenising_of_a_long_prompt(engine, monkeypatch):
    asked = []
    monkeypatch.setattr(engine._model, "tokenize", lambda piece, **_options: asked.append(piece) or [1])
    assert events(engine, GenerateRequest(prompt="<|im_start|>a " * 9_000), CancelAtCall(3)) == []
    assert len(asked) == 2


def test_cancel_ends_a_long_prompt_within_its_first_chunk(engine):
    cancel = CancelAtCall(60)
    assert events(engine, GenerateRequest(prompt="hello " * 2000), cancel) == []
    assert cancel.left > -60, "the native code went on asking instead of stopping"


def test_cancel_is_seen_within_one_slow_token(engine, monkeypatch):
    monkeypatch.setattr("rbee_plugins.llamacpp.loop.SLOW_CALL_S", -1)
    cancel = CancelAtCall(10**9)
    stream = engine.generate(STORY, cancel)
    assert isinstance(next(stream), PromptDone)
    assert isinstance(next(stream), Token)
    cancel.left = 20
    assert list(stream) == []
    assert cancel.left >= -5


def test_tokens_hold_whole_characters(engine, monkeypatch):
    pieces = iter([b"a\xf0\x9f", b"\x90", b"\x9d", b"\xc3", b"\xa9z", b"\xe2\x82"])
    monkeypatch.setattr(engine._model, "piece", lambda _token, **_options: next(pieces))
    tokens = events(engine, GenerateRequest(prompt="Once upon a time", max_tokens=6, temperature=0))[1:-1]
    assert [t.text for t in tokens] == ["a", "", "\N{HONEYBEE}", "", "\N{LATIN SMALL LETTER E WITH ACUTE}z", "\ufffd"]


def test_a_character_that_the_models_end_cuts_is_flushed(engine, monkeypatch):
    monkeypatch.setattr(engine._model, "piece", lambda _token, **_options: b"\xf0\x9f")
    ends = iter([False, True])
    monkeypatch.setattr(engine._model, "is_end", lambda _token: next(ends))
    monkeypatch.setattr(engine._loop._calls, "_ends", {})
    assert events(engine, STORY)[1:] == [Token(""), Token("\ufffd"), Finished("stop")]


def test_a_prompt_in_any_script_survives_the_round_trip(engine):
    prompt = "Grüße, 世界 🐝"
    tokens = engine._model.tokenize(prompt, add_special=False)
    assert b"".join(engine._model.piece(t) for t in tokens).decode() == prompt
    assert engine._model.tokenize("\ud800", add_special=False)


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


MEASURE = """
import json, sys, threading, psutil
from pathlib import Path
from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel, Tuning
from rbee_plugins.llamacpp.backend import LlamaCppCpu
path, context = Path(sys.argv[1]), int(sys.argv[2])
model, nothing_saved = LocalModel("m", path, "gguf", path.stat().st_size), Tuning(prompt_cache_bytes=0)
options = LoadOptions(context_tokens=context, tuning=nothing_saved)
backend = LlamaCppCpu()
estimate = backend.estimate(model, options).total_bytes
assert not {"llama_cpp", "llama_cpp.llama_cpp", "numpy"} & set(sys.modules)
before = psutil.Process().memory_info().rss
engine = backend.load(model, backend.devices()[0], options, lambda fraction, detail="": True)
assert not {"llama_cpp", "numpy"} & set(sys.modules), "the bindings alone are enough"
list(engine.generate(GenerateRequest(prompt="hello " * 520, max_tokens=2), threading.Event()))
print(json.dumps([estimate, psutil.Process().memory_info().rss - before]))
"""


@pytest.mark.parametrize("context", [2048, 8192])
def test_the_estimate_is_what_a_worker_takes(model, context):
    command = [sys.executable, "-c", MEASURE, str(model.path), str(context)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    estimate, measured = json.loads(done.stdout)
    assert 0.75 < measured / estimate < 1.25


@pytest.mark.parametrize(
    ("buffers", "accelerator"),
    [
        (["CPU_Mapped", "CUDA0"], "cuda"),
        (["CPU", "CUDA1", "CUDA0"], "cuda"),
        (["CPU_Mapped", "CUDA_Host"], "cpu"),
        (["CPU_Mapped", "Metal_Mapped"], "metal"),
        (["MTL0"], "metal"),
        (["Vulkan0"], "cpu"),
        (["CPU_REPACK", "CPU_Mapped"], "cpu"),
        ([], "cpu"),
    ],
)
@pytest.mark.usefixtures("engine")
def test_the_accelerator_is_where_the_weights_are(buffers, accelerator):
    from rbee_plugins.llamacpp import native

    assert native.accelerator_of(buffers) == accelerator


def test_the_log_still_names_the_weights_buffers(llamacpp, monkeypatch, caplog):
    """A llama.cpp that words this otherwise would make every GPU look unused."""
    from rbee_plugins.llamacpp.native import model

    seen = set()
    monkeypatch.setattr(model, "accelerator_of", lambda names: seen.update(names) or "cpu")
    with caplog.at_level("INFO"):
        llamacpp.load(accept, context=256).close()
    assert seen
    assert all(name.startswith("CPU") for name in seen)
    assert not [r for r in caplog.records if "buffer" in r.getMessage()], "the chatter went to the worker's log"


def test_a_model_that_stayed_on_the_processor_says_so(llamacpp):
    """What a build without CUDA does when it is asked to put layers on a GPU: the hive must be able to see it."""
    from rbee_plugins.llamacpp.backend import LlamaCppCuda

    options = LoadOptions(context_tokens=256)
    engine = LlamaCppCuda().load(llamacpp.model, Device("cuda:0", "none"), options, accept)
    assert engine.info().accelerator == "cpu"
    engine.close()
