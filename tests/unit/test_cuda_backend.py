"""Choosing CUDA: what is missing is named, nothing falls back, nothing heavy is imported."""

import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from rbee_core.backend import Backend, Device, LoadOptions, LocalModel, Tuning
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import BackendNotAvailable, InvalidRequest
from rbee_plugins import nvml
from rbee_plugins.llamacpp import backend as llamacpp
from rbee_plugins.llamacpp import builds
from tests.support.gguf_files import Gguf

GB = 1 << 30
CARD = nvml.Gpu(0, "GPU-aaaa1111", "NVIDIA GeForce RTX 4090", 24 * GB, 20 * GB)


def no_driver():
    raise nvml.NvmlUnusable("the CUDA driver cannot be used (NVML Shared Library Not Found)", "install the driver")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("LLAMA_CPP_LIB_PATH", raising=False)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Pretend that a llama-cpp-python with these libraries is installed; None for none at all."""

    def install(*libraries):
        folder = tmp_path / "llama_cpp"
        (folder / "lib").mkdir(parents=True)
        for name in libraries:
            (folder / "lib" / name).touch()
        spec = ModuleSpec("llama_cpp", None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        monkeypatch.setattr(builds, "find_spec", lambda _name: spec)
        return folder / "lib"

    return install


def host(*backends: Backend) -> PluginHost:
    made = PluginHost({}, found=[])
    made._backends = {b.name: b for b in backends}
    return made


def test_without_the_package_nothing_else_is_asked(monkeypatch):
    monkeypatch.setattr(builds, "find_spec", lambda _name: None)
    assert "not installed" in llamacpp.LlamaCppCuda(no_driver).availability().reason


@pytest.mark.parametrize("library", ["libggml-cuda.so", "libggml-cuda.so.0", "ggml-cuda.dll"])
def test_a_build_for_cuda_is_known_by_its_library(build, library):
    build("libllama.so", library)
    assert llamacpp.LlamaCppCuda(lambda: [CARD]).availability().usable


def test_a_build_elsewhere_is_looked_for_there(build, tmp_path, monkeypatch):
    build("libllama.so", "libggml-cuda.so")
    (tmp_path / "libllama.so").touch()
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert "without CUDA" in builds.availability("cuda").reason


def test_build_driver_and_device_are_told_apart(build):
    lib = build("libllama.so", "libggml-cpu.so")
    assert "built without CUDA" in llamacpp.LlamaCppCuda(lambda: [CARD]).availability().reason
    (lib / "libggml-cuda.so").touch()
    assert "CUDA driver cannot be used" in llamacpp.LlamaCppCuda(no_driver).availability().reason
    assert "no device" in llamacpp.LlamaCppCuda(list).availability().reason


def test_cuda_is_never_replaced_by_the_processor(build):
    build("libllama.so")
    cuda, cpu = llamacpp.LlamaCppCuda(lambda: [CARD]), llamacpp.LlamaCppCpu()
    for asked in ("cuda", "llamacpp-cuda"):
        with pytest.raises(BackendNotAvailable, match=r"(?i)cuda.*built without CUDA") as caught:
            host(cuda, cpu).choose(asked, "gguf")
        assert caught.value.details["available"] == ["llamacpp-cpu"]
        assert "available here: llamacpp-cpu" in caught.value.hint
    assert host(cuda, cpu).choose(None, "gguf") is cpu


def test_cuda_comes_first_where_it_works(build):
    build("libggml-cuda.so")
    cuda, cpu = llamacpp.LlamaCppCuda(lambda: [CARD]), llamacpp.LlamaCppCpu()
    assert host(cpu, cuda).choose(None, "gguf") is cuda
    assert host(cpu, cuda).choose("cpu", "gguf") is cpu
    with pytest.raises(InvalidRequest, match="reads gguf"):
        host(cpu, cuda).choose("cuda", "mlx")


def test_a_worker_gets_its_gpu_and_the_common_settings(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    backend = llamacpp.LlamaCppCuda(lambda: [CARD])
    (device,) = backend.devices()
    assert backend.environment(device) == {"CUDA_VISIBLE_DEVICES": "GPU-aaaa1111", "GOMP_SPINCOUNT": "1000"}
    assert not device.shares_host_memory


def test_the_estimate_counts_the_drivers_share(tmp_path):
    path = Gguf().write(tmp_path)
    model = LocalModel("m", path, "gguf", path.stat().st_size)
    backends, nothing_saved = (llamacpp.LlamaCppCuda(list), llamacpp.LlamaCppCpu()), Tuning(prompt_cache_bytes=0)
    gpu, cpu = (backend.estimate(model, LoadOptions(tuning=nothing_saved)) for backend in backends)
    assert gpu.total_bytes - cpu.total_bytes == llamacpp.LlamaCppCuda.driver_bytes
    assert gpu.weights_bytes == cpu.weights_bytes
    assert (gpu.mapped_bytes, cpu.mapped_bytes) == (0, cpu.weights_bytes)
    saved = LoadOptions(tuning=Tuning(prompt_cache_bytes=1000))
    more = [
        backend.estimate(model, saved).total_bytes - need.total_bytes
        for backend, need in zip(backends, (gpu, cpu), strict=True)
    ]
    assert more == [0, 1000], "saved states are in the host's memory"


@pytest.mark.parametrize(("system", "machine"), [("linux", "aarch64"), ("darwin", "x86_64"), ("win32", "AMD64")])
def test_metal_needs_apple_silicon(monkeypatch, system, machine):
    monkeypatch.setattr(llamacpp.sys, "platform", system)
    monkeypatch.setattr(llamacpp.platform, "machine", lambda: machine)
    assert "Apple Silicon" in llamacpp.LlamaCppMetal().availability().reason


def test_metal_is_used_on_apple_silicon(build, monkeypatch):
    monkeypatch.setattr(llamacpp.sys, "platform", "darwin")
    monkeypatch.setattr(llamacpp.platform, "machine", lambda: "arm64")
    lib = build("libllama.dylib")
    assert "without METAL" in llamacpp.LlamaCppMetal().availability().reason
    (lib / "libggml-metal.dylib").touch()
    assert llamacpp.LlamaCppMetal().availability().usable
    (device,) = llamacpp.LlamaCppMetal().devices()
    assert (device.id, device.shares_host_memory) == ("metal", True)


def test_a_gpu_gets_all_layers_and_the_processor_none():
    assert (llamacpp.LlamaCppCuda.gpu_layers, llamacpp.LlamaCppMetal.gpu_layers) == (-1, -1)
    assert llamacpp.LlamaCppCpu.gpu_layers == 0


PROBE = """
import sys, time
from rbee_core.backend.manager import PluginHost
from rbee_core.errors import BackendNotAvailable
host = PluginHost({})
host.backends()
slowest = 0
for _ in range(2):
    started = time.process_time()
    try:
        host.choose("cuda", None)
    except BackendNotAvailable as error:
        print(error)
    slowest = time.process_time() - started
engines = {"llama_cpp", "llama_cpp.llama_cpp", "mlx.core", "mlx_lm", "numpy", "transformers"}
print(not engines & set(sys.modules), slowest < 0.1)
"""


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has an NVIDIA driver")
def test_probing_is_cheap_and_imports_no_engine():
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=os.environ)
    *errors, last = done.stdout.splitlines()
    assert all(line.startswith("Backend CUDA is not available: ") for line in errors)
    assert (len(errors), last) == (2, "True True")


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="this machine has an NVIDIA driver")
def test_infer_on_cuda_fails_fast_and_starts_no_worker(tmp_path):
    command = [sys.executable, "-m", "rbee_core.keeper", "infer", "--backend", "cuda", "--prompt", "hi"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | {"RBEE_HOME": str(tmp_path)}
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Backend CUDA is not available" in done.stderr
    assert "available here: " in done.stderr
    assert not list(tmp_path.rglob("worker-*")), "a worker was started"


def test_a_device_of_another_backend_gets_no_gpu():
    assert llamacpp.LlamaCppCuda(list).environment(Device("cuda:0", "gone"))["CUDA_VISIBLE_DEVICES"] == ""
