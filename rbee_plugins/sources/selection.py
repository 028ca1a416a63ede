"""Which files of a repository make up the model that was asked for. Pure: names in, names out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rbee_plugins.sources.formats import split_parts, whole_ggufs

DEFAULT_QUANT = "Q4_K_M"
# Quantisations by size, smallest first: "nearest" means the fewest steps in this list.
_QUANTS = re.findall(
    r"\w+",
    "IQ1_S IQ1_M TQ1_0 TQ2_0 IQ2_XXS IQ2_XS IQ2_S IQ2_M Q2_K_S Q2_K Q2_K_L Q2_K_XL IQ3_XXS IQ3_XS Q3_K_S IQ3_S "
    "IQ3_M Q3_K_M Q3_K_L Q3_K_XL IQ4_XS IQ4_NL Q4_0 Q4_K_S MXFP4 Q4_K Q4_K_M Q4_K_L Q4_K_XL Q4_1 Q5_0 Q5_K_S Q5_K "
    "Q5_K_M Q5_K_L Q5_K_XL Q5_1 Q6_K Q6_K_L Q6_K_XL Q8_0 Q8_K Q8_K_XL BF16 F16 FP16 F32 FP32",
)
_SIZE = {name: place for place, name in enumerate(_QUANTS)}
_QUANT = re.compile(
    r"(?:^|[-._/])((?:UD-)?(" + "|".join(sorted(_QUANTS, key=len, reverse=True)) + r"))(?=$|[-._/])", re.IGNORECASE
)
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(?:/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,7}")
_FOLDER_FILES = re.compile(r"[^/]+\.(?:safetensors|json|txt|jinja)|tokenizer\.model")


@dataclass(frozen=True, slots=True)
class Choice:
    """The files to take. `entry` is the one to load, "" the folder; `note` names a choice the user did not make."""

    format: str
    files: tuple[str, ...]
    entry: str
    note: str = ""


def is_safe_name(name: str) -> bool:
    """Return whether a hub's file name may become a path below a model's folder."""
    return bool(_SAFE_NAME.fullmatch(name)) and ".." not in name


def quant_of(name: str) -> str:
    """Return the quantisation that a file's name tells, in capitals; "" for none."""
    found = list(_QUANT.finditer(name.rsplit(".", 1)[0]))
    return found[-1][1].upper() if found else ""


def gguf_entries(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the complete GGUF models among a hub's `names`: first part to all parts."""
    return whole_ggufs(filter(is_safe_name, names))


def choose(names: Sequence[str], formats: Sequence[str], *, path: str = "", quant: str = "") -> Choice | None:
    """Return the files for the first of `formats` that `names` can serve, or None.

    `path` asks for one file, `quant` for a quantisation; what is asked for is found or nothing is. Only who asks for
    neither is given what is nearest to `DEFAULT_QUANT`.
    """
    if path:
        parts = split_parts(path)
        return Choice("gguf", tuple(parts), parts[0]) if parts and parts[0] in gguf_entries(names) else None
    for wanted in formats or ("gguf", "mlx"):
        choice = _choose_gguf(names, quant) if wanted == "gguf" else None
        if wanted == "mlx" and not quant:
            choice = _choose_folder(names)
        if choice:
            return choice
    return None


def _choose_gguf(names: Sequence[str], quant: str) -> Choice | None:
    entries = gguf_entries(names)
    asked = (quant or DEFAULT_QUANT).upper()
    best = min(entries, key=lambda name: (_distance(quant_of(name), asked), len(name), name), default=None)
    if best is None or (quant and not _same(quant_of(best), asked)):
        return None
    found = quant_of(best)
    note = "" if _same(found, asked) else f"no {asked} in this repository: using {found or best}"
    return Choice("gguf", entries[best], best, note)


def _same(found: str, asked: str) -> bool:
    """Return whether two names mean one quantisation: who made it is no part of it, and FP16 is F16."""
    plain = [name.removeprefix("UD-").replace("FP", "F") for name in (found, asked)]
    return plain[0] == plain[1]


def _distance(found: str, asked: str) -> float:
    if found == asked:
        return 0
    if _same(found, asked):
        return 0.25
    places = [_SIZE.get(name.removeprefix("UD-")) for name in (found, asked)]
    if places[0] is None or places[1] is None:
        return len(_SIZE)
    return abs(places[0] - places[1]) + 0.5


def _choose_folder(names: Sequence[str]) -> Choice | None:
    files = [n for n in names if _FOLDER_FILES.fullmatch(n) and is_safe_name(n)]
    weights = [n for n in files if n.endswith(".safetensors")]
    # Some repositories hold the same weights twice; loaders of this format read model*.safetensors.
    keep = [n for n in weights if n.startswith("model")] or weights
    if "config.json" not in files or not keep:
        return None
    others = [n for n in files if not n.endswith(".safetensors")]
    return Choice("mlx", tuple(sorted(others) + sorted(keep)), "")
