"""What an MLX folder may hold, and what it will need: decided from JSON and tensor headers alone."""

import json
import os
import struct

import pytest

from rbee_core.backend import LoadOptions, LocalModel, Tuning
from rbee_core.errors import InvalidRequest, ModelLoadFailed
from rbee_plugins.mlx import memory
from rbee_plugins.mlx.backend import Mlx
from rbee_plugins.mlx.folder import ModelFolder, read_folder

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "vocab_size": 100,
}
TENSORS = {
    "__metadata__": {"format": "mlx"},
    "a.weight": {"dtype": "U32", "shape": [8, 4], "data_offsets": [0, 128]},
    "a.scales": {"dtype": "F16", "shape": [8, 2], "data_offsets": [128, 160]},
}


def safetensors(header, data_bytes=160, length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data_bytes)


@pytest.fixture
def make(tmp_path):
    def write(config=CONFIG, weights=None, **files):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
        (folder / "model.safetensors").write_bytes(safetensors(TENSORS) if weights is None else weights)
        for name, content in files.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return LocalModel("test/model", folder, "mlx", 1)

    return write


def test_a_sound_folder_is_read(make):
    folder = read_folder(make())
    assert (folder.architecture, folder.tensor_bytes, folder.half_bytes) == ("llama", 160, 32)
    assert folder.number("hidden_size") == 64


def test_shards_are_added_up_and_other_files_left_out(make):
    model = make()
    (model.path / "model-00002-of-00002.safetensors").write_bytes(safetensors(TENSORS))
    (model.path / "adapter.safetensors").write_bytes(b"noise")
    assert read_folder(model).tensor_bytes == 320


def test_numbers_may_stand_in_the_part_about_text(make):
    folder = read_folder(make({"model_type": "x", "text_config": {"hidden_size": 7}, "vocab_size": "many"}))
    assert (folder.number("hidden_size"), folder.number("vocab_size")) == (7, 0)


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config": {"auto_map": {"AutoTokenizer": ["evil.T", None]}}},
        {"generation_config": {"x": [{"model_file": "evil.py"}]}},
        {"processor_config": {"auto_map": {"AutoProcessor": "evil.P"}}},
    ],
)
def test_code_is_refused_wherever_it_is_named(make, files):
    with pytest.raises(ModelLoadFailed, match="its own code"):
        read_folder(make(**files))


def test_an_empty_entry_names_no_code(make):
    assert read_folder(make(CONFIG | {"auto_map": {}, "model_file": None}))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "no JSON object"),
        ("{}", "does not name a model_type"),
        ('{"model_type": 5}', "does not name a model_type"),
        ("\x00\x01", "is no JSON"),
    ],
)
def test_a_damaged_configuration_is_refused(make, config, why):
    with pytest.raises(ModelLoadFailed, match=why):
        read_folder(make(config))


def entry(**changes):
    return safetensors({"a": {"dtype": "F16", "shape": [8, 2], "data_offsets": [0, 32]} | changes})


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (b"", "truncated"),
        (b"\x00" * 7, "truncated"),
        (safetensors(TENSORS, length=2**63), "truncated"),
        (safetensors(TENSORS, length=10**6), "truncated"),
        (safetensors(b"x" * 64), "is no JSON"),
        (safetensors(b"[1]"), "no JSON object"),
        (safetensors(TENSORS, data_bytes=159), "truncated: tensor a.scales"),
        (entry(dtype="F99"), "damaged entry"),
        (entry(dtype=["F16"]), "damaged entry"),
        (entry(shape=[-8, -2]), "damaged entry"),
        (entry(shape="82"), "damaged entry"),
        (entry(shape=[8, 3]), "damaged entry"),
        (entry(data_offsets=[32, 0]), "damaged entry"),
        (entry(data_offsets=[-32, 0]), "damaged entry"),
        (entry(data_offsets=[0]), "damaged entry"),
        (safetensors({"a": 5}), "damaged entry"),
    ],
)
def test_damaged_weights_are_refused(make, weights, why):
    with pytest.raises(ModelLoadFailed, match=why):
        read_folder(make(weights=weights))


def test_missing_parts_are_named(make, tmp_path):
    model = make()
    (model.path / "model.safetensors").unlink()
    with pytest.raises(ModelLoadFailed, match="no model"):
        read_folder(model)
    with pytest.raises(ModelLoadFailed, match="model_type"):
        read_folder(LocalModel("m", tmp_path / "nowhere", "mlx", 0))


def test_a_pipe_in_place_of_weights_makes_nobody_wait(make):
    model = make()
    (model.path / "model.safetensors").unlink()
    os.mkfifo(model.path / "model.safetensors")
    with pytest.raises(ModelLoadFailed, match="no safetensors file"):
        read_folder(model)


def test_a_path_that_mlx_lm_would_take_for_a_pattern_is_refused(make):
    model = make()
    odd = model.path.with_name("model[1]")
    model.path.rename(odd)
    with pytest.raises(ModelLoadFailed, match="characters"):
        read_folder(LocalModel("m", odd, "mlx", 0))


def folder_of(tensor_bytes=160, half_bytes=32, **config):
    return ModelFolder(CONFIG | config, tensor_bytes, half_bytes)


def test_half_floats_count_double_on_the_processor_only():
    cpu, gpu = (memory.estimate(folder_of(), 300, 1, where) for where in ("cpu", "metal"))
    assert (cpu.weights_bytes, gpu.weights_bytes) == (192, 160)
    values = 512 * 2 * 2 * 2 * 16  # padded context, layers, keys and values, heads, width
    assert (cpu.kv_cache_bytes, gpu.kv_cache_bytes) == (2 * values * 4, 2 * values * 2), "a text, and kept prompts"


@pytest.mark.parametrize(("asked", "where", "slots"), [(0, "cpu", 2), (0, "metal", 4), (7, "cpu", 7)])
def test_slots_that_nobody_asked_for_are_few(asked, where, slots):
    assert memory.slots(asked, where) == slots


def test_each_slot_has_a_context_of_its_own_and_prompts_are_kept_beside():
    one, five = (memory.estimate(folder_of(), 300, slots, "cpu") for slots in (1, 5))
    kept = memory.cache_bytes(folder_of(), 300, "cpu")
    assert five.kv_cache_bytes - kept == 5 * (one.kv_cache_bytes - kept) > 0
    none = memory.estimate(folder_of(), 300, 1, "cpu", Tuning(prompt_cache_bytes=0))
    assert none.kv_cache_bytes == one.kv_cache_bytes - kept


@pytest.mark.parametrize(
    ("megabytes", "where", "tokens"),
    [(98, "cpu", 2), (300, "cpu", 1), (5000, "cpu", 1), (0.1, "cpu", 512), (98, "metal", 512), (40_000, "metal", 8)],
)
def test_chunks_shrink_with_the_model(megabytes, where, tokens):
    assert memory.chunk_tokens(folder_of(int(megabytes * 1e6)), where) == tokens


def test_the_context_is_bounded_by_what_the_model_was_trained_for():
    assert memory.context_tokens(folder_of(), None) == 2048
    assert memory.context_tokens(folder_of(max_position_embeddings=131072), None) == 4096
    assert memory.context_tokens(folder_of(max_position_embeddings=None), 9999) == 9999
    with pytest.raises(InvalidRequest, match=r"4000 .* 2048"):
        memory.context_tokens(folder_of(), 4000)


def test_the_backend_estimates_without_an_engine(make):
    estimate = Mlx("cpu").estimate(make(), LoadOptions(context_tokens=1024))
    assert estimate.context_tokens == 1024
    assert estimate.weights_bytes == 192
