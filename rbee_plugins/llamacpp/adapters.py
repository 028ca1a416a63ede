"""Whether LoRA adapters belong to a model, and how much memory they take: told from the headers of both."""

from collections.abc import Iterable
from pathlib import Path

from rbee_core.backend import Adapter
from rbee_core.backend.gguf import GgufHeader, GgufTensor, read_header
from rbee_core.errors import InvalidRequest

_TRANSPOSED = "token_embd.weight"  # its two parts lie the other way round


def checked_bytes(header: GgufHeader, adapters: Iterable[Adapter]) -> int:
    """Return how many bytes `adapters` have, for the model with `header`.

    Raises `InvalidRequest` for what is no adapter, and for one of another model; `ModelLoadFailed` for no good file.
    """
    return sum(_checked(header, adapter.path) for adapter in adapters)


def _checked(header: GgufHeader, path: str) -> int:
    adapter = read_header(Path(path))
    if adapter.text("general.type") != "adapter" or adapter.text("adapter.type") != "lora":
        raise InvalidRequest(f"{path} is no LoRA adapter", hint="convert_lora_to_gguf.py of llama.cpp makes one")
    if adapter.architecture != header.architecture:
        raise _of_another(path, f"it is for {adapter.architecture or 'no family'}, and this is {header.architecture}")
    if header.metadata.get("split.count", 1) == 1:
        shapes = {tensor.name: tensor.shape for tensor in header.tensors}
        for tensor in adapter.tensors:
            if why := _misfit(tensor, shapes):
                raise _of_another(path, why)
    return adapter.tensor_bytes


def _misfit(tensor: GgufTensor, shapes: dict[str, tuple[int, ...]]) -> str:
    name, _dot, part = tensor.name.rpartition(".")
    shape = shapes.get(name)
    if shape is None:
        return f"there is no {name} in this one"
    place = {"lora_a": 0, "lora_b": 1}.get(part)
    if place is None or name == _TRANSPOSED or len(shape) != 2 or len(tensor.shape) != 2:
        return ""  # llama.cpp looks at it
    if tensor.shape[place] != shape[place]:
        return f"{name} is {shape[place]} wide in this one, not {tensor.shape[place]}"
    return ""


def _of_another(path: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"The adapter {path} was made for another model: {why}", hint="use the model that it names")
