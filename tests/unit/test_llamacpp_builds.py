"""What can be told of an installed llama.cpp without loading it."""

from importlib.machinery import ModuleSpec

import pytest

from rbee_plugins.llamacpp import builds


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ([], "there is no llama.cpp"),
        (["libggml-cpu.so"], "there is no llama.cpp"),
        (["libllama.so", "libllama.so.0.6.0"], "0.6.0 there, while the bindings were made for 0.5.0"),
        (["libllama.0.6.0.dylib"], "0.6.0 there, while the bindings were made for 0.5.0"),
        (["libllama.so.0.5.0", "libllama.so"], ""),
        (["llama.dll"], ""),
    ],
)
def test_a_folder_of_other_libraries_is_judged_by_their_names(tmp_path, monkeypatch, there, why):
    own, elsewhere = tmp_path / "llama_cpp" / "lib", tmp_path / "elsewhere"
    for folder, names in ((own, ["libllama.so", "libllama.so.0", "libllama.so.0.5.0"]), (elsewhere, there)):
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    spec = ModuleSpec("llama_cpp", None, is_package=True)
    spec.submodule_search_locations = [str(own.parent)]
    monkeypatch.setattr(builds, "find_spec", lambda _name: spec)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(elsewhere))
    found = builds.availability()
    assert found.usable is not bool(why)
    assert why in found.reason
    assert found.usable or "LLAMA_CPP_LIB_PATH" in found.hint
