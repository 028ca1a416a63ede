"""What is MLX's own in its engine; what all engines promise is in test_engine.py."""

import json
import os
import subprocess
import sys
from contextlib import closing

import pytest

from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel, Message
from rbee_core.backend.templates import ChatTemplate
from rbee_core.errors import InvalidRequest, ModelLoadFailed

PREFIX = "1 2 3 4 5 6 7 8 nine ten eleven twelve"


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


def test_a_prompt_that_was_seen_before_gives_the_same_numbers_to_the_last_bit(mlx):
    def asked(prompt, **fields):
        first, token, _ = mlx.events(GenerateRequest(prompt=prompt, max_tokens=1, logprobs=5, **fields))
        return (first.cached_tokens, first.not_cached), token

    (cached, why), fresh = asked(PREFIX, temperature=0, reuse_prompt=False)
    assert (cached, why) == (0, "asked not to")
    (cached, why), other = asked(PREFIX.replace("ten", "what follows differs"), temperature=0)
    assert cached >= 16
    assert why == f"differs at token {cached}"
    assert other != fresh
    (cached, why), again = asked(PREFIX, temperature=0)
    assert cached >= 16
    assert again == fresh, "it took over what was computed before"
    _, seeded = asked(PREFIX, seed=7)
    assert asked(PREFIX, seed=7, reuse_prompt=False)[1] == seeded


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
    question = GenerateRequest(messages=(Message("user", "Hello"),))
    with closing(ChatTemplate("{{ raise_exception('no system role') }}")) as template:
        monkeypatch.setattr(mlx.engine._model, "_template", template)
        with pytest.raises(InvalidRequest, match="no system role"):
            mlx.events(question)
    monkeypatch.setattr(mlx.engine._model, "_template", ChatTemplate(""))
    monkeypatch.setattr(mlx.engine._model._tokenizer._tokenizer, "has_chat_template", False)
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


MEASURE = """
import json, os, sys, threading, psutil
from pathlib import Path
from rbee_core.backend import GenerateRequest, LoadOptions, LocalModel
from rbee_plugins.mlx import memory
from rbee_plugins.mlx.backend import Mlx, read_folder
backend = Mlx()
model, options = LocalModel("m", Path(sys.argv[1]), "mlx", 1), LoadOptions(context_tokens=256)
device = backend.devices()[0]
kept = memory.cache_bytes(read_folder(model), 256, "cpu")  # room for earlier prompts, of which there are none
estimate = backend.estimate(model, options).total_bytes - kept
assert not {"mlx.core", "mlx_lm", "numpy", "transformers"} & set(sys.modules)
os.environ.update(backend.environment(device))
before = psutil.Process().memory_info().rss
def no_network(event, arguments):
    if event == "subprocess.Popen" and str(arguments[1][-1]).endswith("template_program.py"):
        return  # which renders chat templates, and asks nobody
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
