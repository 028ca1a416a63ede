"""What is MLX's own in its engine; what all engines promise is in test_engine.py."""

import json
import os
import subprocess
import sys
import threading

import pytest

from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel, Message
from rbee_core.errors import InvalidRequest, ModelLoadFailed

PREFIX = "one two three four five six seven eight nine ten eleven"


def accept(_fraction, _detail=""):
    return True


@pytest.fixture
def copy(mlx, tmp_path):
    """A copy of the model that a test may damage; the weights are a link."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in mlx.model.path.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return LocalModel("test/copy", folder, "mlx", mlx.model.size_bytes)


def change(model, name, **values):
    path = model.path / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def read_prompt(model, tokens):
    """Return every layer's keys and values after `tokens`, and how many came from the cache."""
    known, chunk = model.begin(tokens), model._chunk_tokens
    for start in range(known, len(tokens) - 1, chunk):
        model.read(tokens[start : min(start + chunk, len(tokens) - 1)])
    return known, [part[..., : layer.offset, :] for layer in model._cache for part in (layer.keys, layer.values)]


def test_a_prompt_that_was_seen_before_is_the_same_to_the_last_bit(mlx):
    import mlx.core as mx

    model = mlx.engine._model
    tokens = model.tokenize(PREFIX)
    read_prompt(model, model.tokenize("something else"))
    known, fresh = read_prompt(model, tokens)
    assert known == 0
    mx.eval(fresh)
    mlx.text(GenerateRequest(prompt=PREFIX, max_tokens=3, temperature=0))
    read_prompt(model, [*tokens[:9], *model.tokenize("what follows differs")])
    known, again = read_prompt(model, tokens)
    assert known == 8
    assert len(fresh) == 60
    assert all(mx.array_equal(a, b) for a, b in zip(fresh, again, strict=True))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_file": "evil.py"}),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ],
)
def test_a_configuration_that_names_code_is_refused_and_the_code_not_run(mlx, copy, tmp_path, file, values):
    canary = tmp_path / "canary"
    (copy.path / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()")
    change(copy, file, **values)
    for call in (lambda: mlx.backend.estimate(copy, LoadOptions()), lambda: load(mlx, copy)):
        with pytest.raises(ModelLoadFailed, match=rf"its own code .* in {file}"):
            call()
    assert not canary.exists()


def load(mlx, model):
    return mlx.backend.load(model, mlx.backend.devices()[0], LoadOptions(context_tokens=512), accept)


def test_truncated_weights_are_refused(mlx, copy):
    weights = copy.path / "model.safetensors"
    data = weights.read_bytes()[:8_000_000]
    weights.unlink()
    weights.write_bytes(data)
    with pytest.raises(ModelLoadFailed, match="truncated"):
        load(mlx, copy)


@pytest.mark.parametrize("values", [{"model_type": "nonesuch"}, {"hidden_size": 577}, {"num_hidden_layers": 1}])
def test_what_mlx_lm_refuses_carries_its_reason(mlx, copy, values):
    change(copy, "config.json", **values)
    with pytest.raises(ModelLoadFailed, match=r"mlx-lm does not accept it: .+"):
        load(mlx, copy)


def test_a_refused_conversation_is_the_askers_error(mlx, monkeypatch):
    tokenizer = mlx.engine._model._tokenizer._tokenizer
    question = GenerateRequest(messages=(Message("user", "Hello"),))
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no system role') }}")
    with pytest.raises(InvalidRequest, match="no system role"):
        mlx.events(question)
    monkeypatch.setattr(tokenizer, "chat_template", "{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InvalidRequest, match="refused"):
        mlx.events(question)
    monkeypatch.setattr(tokenizer, "has_chat_template", False)
    with pytest.raises(InvalidRequest, match="no chat template"):
        mlx.events(question)


def test_the_answers_text_is_what_the_tokenizer_makes_of_its_tokens(mlx):
    model = mlx.engine._model
    text = "Grüße, 世界 \N{HONEYBEE}\n  don't"
    answer = model.new_text()
    parts = [answer.add(token) for token in model.tokenize(text)]
    assert "".join(parts) + answer.rest() == text
    assert not any("\ufffd" in part for part in parts)
    assert model.new_text().add(next(iter(model.ends))) == "", "special tokens are no text"


def test_the_answer_is_the_same_with_mlx_lms_own_detokenizer(mlx, monkeypatch):
    request = GenerateRequest(prompt="a b c d e f g h i", max_tokens=3, temperature=0)
    usual = mlx.text(request)
    monkeypatch.setattr(mlx.engine._model, "_piece", None)
    assert mlx.text(request) == usual.lstrip(), "it drops the first space, which is why it is only the second choice"


def test_another_thread_is_refused(mlx):
    failure = []

    def run():
        try:
            mlx.events(GenerateRequest(prompt="x", max_tokens=1))
        except AssertionError as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failure


MEASURE = """
import json, os, sys, threading, psutil
from pathlib import Path
from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel
from rbee_plugins.mlx.backend import Mlx
backend = Mlx()
model, options = LocalModel("m", Path(sys.argv[1]), "mlx", 1), LoadOptions(context_tokens=256)
device = backend.devices()[0]
estimate = backend.estimate(model, options).total_bytes
assert not {"mlx.core", "mlx_lm", "numpy", "transformers"} & set(sys.modules)
os.environ.update(backend.environment(device))
before = psutil.Process().memory_info().rss
def no_network(event, arguments):
    assert not event.startswith(("socket.connect", "socket.getaddrinfo", "subprocess", "os.posix_spawn")), event
sys.addaudithook(no_network)
engine = backend.load(model, device, options, lambda fraction, detail="": True)
list(engine.generate(GenerateRequest(prompt="hello", max_tokens=2), threading.Event()))
assert "torch" not in sys.modules
print(json.dumps([estimate, psutil.Process().memory_info().rss - before]))
"""


def test_the_estimate_is_what_a_worker_takes_and_it_asks_nobody(mlx):
    if mlx.backend.accelerator != "cpu":
        pytest.skip("a GPU's memory is not in the process's")
    command = [sys.executable, "-c", MEASURE, str(mlx.model.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    estimate, measured = json.loads(done.stdout)
    assert 0.75 < measured / estimate < 1.25, (estimate, measured)
