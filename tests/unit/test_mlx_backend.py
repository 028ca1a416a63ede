"""Where MLX runs, and how its tokens become text, decided without importing it."""

from importlib.machinery import ModuleSpec
from types import SimpleNamespace

import pytest

from rbee_plugins import nvml
from rbee_plugins.mlx import backend as mlx
from rbee_plugins.mlx.text import TokenText, pieces

CARD = nvml.Gpu(3, "GPU-aaaa1111", "NVIDIA L4", 24 << 30, 20 << 30)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Pretend to be a machine with these things installed."""

    def become(system="linux", processor="x86_64", *, mlx_lm=True, library="libmlx.so", package="mlx_cpu-0.32.4"):
        places = tmp_path / "site-packages" / "mlx"
        (places / "lib").mkdir(parents=True)
        if library:
            (places / "lib" / library).touch()
        (places.parent / f"{package}.dist-info").mkdir()
        spec = ModuleSpec("mlx", None, is_package=True)
        spec.submodule_search_locations = [str(places)]
        monkeypatch.setattr(mlx, "find_spec", lambda name: spec if name == "mlx" or mlx_lm else None)
        monkeypatch.setattr(mlx.sys, "platform", system)
        monkeypatch.setattr(mlx.platform, "machine", lambda: processor)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return become


@pytest.mark.parametrize(
    ("system", "processor", "package", "accelerator"),
    [
        ("darwin", "arm64", "mlx_metal-0.32.4", "metal"),
        ("linux", "x86_64", "mlx_cpu-0.32.4", "cpu"),
        ("linux", "aarch64", "mlx_cpu-0.32.4", "cpu"),
        ("linux", "x86_64", "mlx_cuda_12-0.32.4", "cuda"),
        ("linux", "x86_64", "mlx_cuda_13-0.32.4", "cuda"),
    ],
)
def test_the_installed_build_decides_the_accelerator(machine, system, processor, package, accelerator):
    machine(system, processor, package=package)
    backend = mlx.Mlx(gpus=lambda: [CARD])
    assert backend.availability().usable
    assert backend.accelerator == accelerator
    assert (backend.priority > 0) == (accelerator != "cpu")
    (device,) = backend.devices()
    assert device.id == {"cuda": "cuda:3"}.get(accelerator, accelerator)
    assert device.shares_host_memory == (accelerator != "cuda")


@pytest.mark.parametrize(
    ("things", "reason"),
    [
        ({"mlx_lm": False}, "mlx-lm is not installed"),
        ({"library": ""}, "no build of mlx"),
        ({"system": "darwin"}, "Apple Silicon"),
        ({"system": "win32"}, "Linux"),
    ],
)
def test_what_is_missing_is_told_apart(machine, things, reason):
    machine(**things)
    answer = mlx.Mlx().availability()
    assert not answer.usable
    assert reason in answer.reason


def test_a_cuda_build_without_a_gpu_is_no_quiet_processor(machine):
    machine(package="mlx_cuda_13-0.32.4")
    backend = mlx.Mlx(gpus=list)
    assert "CUDA driver finds no device" in backend.availability().reason
    assert backend.devices() == []


def test_a_worker_stays_off_the_network_and_on_its_gpu(machine):
    machine(package="mlx_cuda_13-0.32.4")
    backend = mlx.Mlx(gpus=lambda: [CARD])
    environment = backend.environment(backend.devices()[0])
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa1111"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in mlx.Mlx("cpu").environment(mlx.Mlx("cpu").devices()[0])


class Vocabulary:
    """The part of a Hugging Face tokenizer that matters here."""

    def __init__(self, *tokens, special=(), added=()):
        self._tokens = tokens
        self.all_special_ids = list(special)
        self.added_tokens_decoder = {n: SimpleNamespace(content=tokens[n], special=n in special) for n in added}

    def convert_ids_to_tokens(self, token):
        return self._tokens[token] if token < len(self._tokens) else None


def texts(vocabulary, decoder):
    text = TokenText(pieces(vocabulary, decoder))
    return [text.add(n) for n in range(len(vocabulary._tokens))] + [text.rest()]


def test_byte_level_tokens_become_whole_characters():
    # GPT-2 writes the bytes F0 9F 90 9D as ð Ł Ĳ Ŀ, a space as Ġ and a line feed as Ċ.
    vocabulary = Vocabulary("ĠHi", "ðŁ", "ĲĿ", "Ċ", "ðŁ")
    assert texts(vocabulary, '{"type":"ByteLevel"}') == [" Hi", "", "\N{HONEYBEE}", "\n", "", "\ufffd"]


def test_byte_fallback_tokens_become_whole_characters():
    vocabulary = Vocabulary("▁Hi", "<0xC3>", "<0xA9>", "▁", "<0x0A>", "<b>")
    decoder = '{"type":"Sequence","decoders":[{"type":"ByteFallback"}]}'
    assert texts(vocabulary, decoder) == [" Hi", "", "é", " ", "\n", "<b>", ""]


def test_special_tokens_are_no_text_and_added_ones_are():
    vocabulary = Vocabulary("a", "<|im_end|>", "<think é>", special=[1], added=[1, 2])
    assert texts(vocabulary, '{"type":"ByteLevel"}') == ["a", "", "<think é>", ""]


def test_a_token_beyond_the_vocabulary_is_no_crash():
    assert pieces(Vocabulary("a"), '{"type":"ByteLevel"}')(5) == b""


def test_other_tokenizers_are_left_to_their_own_decoder():
    assert pieces(Vocabulary("a"), '{"type":"WordPiece"}') is None
    assert pieces(Vocabulary("a"), "") is None
