"""Bindings and a library that do not belong together are refused by the worker, which looks at what it gives."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from rbee_plugins.llamacpp.builds import UnpairedError
from tests.contract.conftest import missing
from tests.support.gguf_files import Gguf

CONTEXT = "llama_context_default_params"


@pytest.fixture
def pairing():
    if why := missing("llamacpp-cpu"):
        pytest.skip(why)
    from rbee_plugins.llamacpp.native import bindings, pairing

    return SimpleNamespace(check=pairing.check, expected=pairing.EXPECTED, bindings=bindings.lib)


def of_another_release(bindings, function, change):
    """The bindings of a release in which a structure has other fields, with the library that is here."""
    real = getattr(bindings, function)
    fields = list(real.restype._fields_)
    change(fields)
    shape = type("params", (ctypes.Structure,), {"_fields_": fields})
    others = {name: getattr(bindings, name) for name in ("llama_version", *changed_functions(bindings))}
    moved = ctypes.CFUNCTYPE(shape)(ctypes.cast(real, ctypes.c_void_p).value)
    return SimpleNamespace(**others | {function: moved})


def changed_functions(bindings):
    return [name for name in dir(bindings) if name.endswith("_default_params")]


def test_what_is_installed_is_a_pair(pairing):
    pairing.check(pairing.bindings)
    version = pairing.bindings.llama_version().decode().partition("-")[0]
    pairing.check(pairing.bindings, {version})


def test_every_default_that_is_looked_at_is_one_that_the_bindings_have(pairing):
    for function, expected in pairing.expected.items():
        given = getattr(pairing.bindings, function)()
        assert expected == {name: getattr(given, name) for name in expected}


def test_a_library_of_another_version_is_refused_with_both(pairing):
    with pytest.raises(UnpairedError, match=r"it is llama.cpp \d.*the bindings were made for 0\.0\.1"):
        pairing.check(pairing.bindings, {"0.0.1"})


def remove(name):
    return lambda fields: fields.remove(next(field for field in fields if field[0] == name))


def insert_before(name, kind=ctypes.c_uint32):
    def change(fields):
        fields.insert(next(i for i, field in enumerate(fields) if field[0] == name), ("new_field", kind))

    return change


@pytest.mark.parametrize(
    ("function", "change"),
    [
        (CONTEXT, remove("n_rs_seq")),
        (CONTEXT, remove("n_ubatch")),
        (CONTEXT, insert_before("n_threads")),
        (CONTEXT, insert_before("type_k", ctypes.c_void_p)),
        (CONTEXT, remove("embeddings")),
        (CONTEXT, insert_before("embeddings", ctypes.c_void_p)),
        ("llama_model_default_params", remove("check_tensors")),
        ("llama_model_default_params", insert_before("kv_overrides", ctypes.c_void_p)),
    ],
)
def test_a_library_whose_structure_has_moved_is_refused_whatever_it_calls_itself(pairing, function, change):
    bindings = of_another_release(pairing.bindings, function, change)
    version = bindings.llama_version().decode().partition("-")[0]
    with pytest.raises(UnpairedError, match=rf"{function} of llama.cpp .* gives \w+ .*, where the bindings expect"):
        pairing.check(bindings, {version})


def test_a_structure_that_has_grown_is_not_written_beyond_its_end(pairing):
    """Bindings that know only the first field of a structure are told of it by a call that has room for all."""

    def keep_the_first(fields):
        del fields[5:]

    pairing.check(of_another_release(pairing.bindings, CONTEXT, keep_the_first))


LOAD = """
import sys
from pathlib import Path
from rbee_core.backend import Device, LoadOptions, LocalModel
from rbee_core.errors import BackendNotAvailable
from rbee_plugins.llamacpp.backend import LlamaCppCpu
path = Path(sys.argv[1])
try:
    LlamaCppCpu().load(LocalModel("m", path, "gguf", 1), Device("cpu", "test"), LoadOptions(), lambda *_: True)
except BackendNotAvailable as error:
    print(error.message, error.hint)
"""


@pytest.mark.parametrize("content", [None, b"no library"])
@pytest.mark.usefixtures("pairing")
def test_a_worker_that_cannot_load_the_library_says_so_in_a_sentence(tmp_path, monkeypatch, content):
    if content:
        (tmp_path / "libllama.so").write_bytes(content)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    command = [sys.executable, "-c", LOAD, str(Gguf().write(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Backend llamacpp-cpu is not available: the llama.cpp library does not belong" in done.stdout, done.stderr
    assert "unset LLAMA_CPP_LIB_PATH" in done.stdout
