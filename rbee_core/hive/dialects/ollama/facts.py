"""What the files of models say of them, read once for each version of a file."""

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from rbee_core import aio
from rbee_core.backend.gguf import GgufArray, GgufHeader, read_header
from rbee_core.dialects.ollama.models import Facts
from rbee_core.errors import ModelLoadFailed

KEPT = 256
# llama.cpp's number of what most of a file's tensors are quantised to.
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip

Version = tuple[str, int, int]


@dataclass(slots=True)
class FactsOfFiles:
    """The facts of one hive's models."""

    _known: dict[Version, Facts] = field(default_factory=dict[Version, Facts], init=False)

    async def of(self, path: Path, model_format: str) -> Facts:
        """Return what the model at `path` says of itself; of formats other than GGUF, and of broken files, little."""
        version = await aio.off_loop(_version, path)
        if version not in self._known:
            self._known[version] = await aio.off_loop(_read, path, model_format, version[2] // 10**9)
            for oldest in list(self._known)[:-KEPT]:
                del self._known[oldest]
        return self._known[version]


def _version(path: Path) -> Version:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), status.st_size, status.st_mtime_ns


def _read(path: Path, model_format: str, modified_unix: int) -> Facts:
    if model_format != "gguf":
        return Facts(modified_unix=modified_unix)
    try:
        header = read_header(path)
    except ModelLoadFailed:  # whoever loads it is told; a list goes on
        return Facts(modified_unix=modified_unix)
    plain = {key: value for key, value in header.metadata.items() if not isinstance(value, GgufArray)}
    parameters = sum(prod(tensor.shape) for tensor in header.tensors)
    return Facts(plain, parameters, _quantization(header), modified_unix)


def _quantization(header: GgufHeader) -> str:
    """Return the name of the mixture, or of the type that most bytes have where the file does not say."""
    number = header.metadata.get("general.file_type")
    if isinstance(number, int) and number in FILE_TYPES:
        return FILE_TYPES[number]
    sizes = Counter[str]()
    for tensor in header.tensors:
        sizes[tensor.type] += tensor.nbytes
    return sizes.most_common(1)[0][0] if sizes else "unknown"
