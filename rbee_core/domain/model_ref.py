"""Model references: what a person types to name a model, parsed and made canonical.

Owns the grammar. Whether anything stands behind a reference is for the model sources to say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rbee_core.errors import InvalidRequest

MAX_LENGTH = 1024
OF_PLACES = frozenset({"file", "pkg", "hf"})
"""Schemes whose references say where a model is and nothing else: two that lead to one file mean one model."""
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_SCHEME = re.compile(r"([a-z][a-z0-9+-]*):(?!\\)")
_REPO = re.compile(rf"({_PART})/({_PART})")
_FILE = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}")
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_DIST_FILE = re.compile(rf"({_PART})/({_PART}(?:/{_PART}){{0,7}})")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A parsed reference. `scheme` chooses the source; the other fields are what its grammar found.

    ``file``: `path`. ``pkg``: `owner` is the distribution, `path` the file in it. ``hf``: `owner`/`name`, and either
    `path` (one file of the repository) or `quant` (a quantisation), or neither. Other schemes: all in `path`.
    """

    scheme: str
    path: str = ""
    owner: str = ""
    name: str = ""
    quant: str = ""

    def __str__(self) -> str:
        """Return the canonical spelling, which parses to an equal reference."""
        if self.scheme == "hf":
            tail = f"/{self.path}" if self.path else f":{self.quant}" if self.quant else ""
            return f"hf:{self.owner}/{self.name}{tail}"
        if self.scheme == "pkg":
            return f"pkg:{self.owner}/{self.path}"
        return f"{self.scheme}:{self.path}"


def parse(text: str, aliases: Mapping[str, str] | None = None) -> ModelRef:
    """Parse what a person typed. An alias wins over everything; aliases do not chain.

    A bare ``org/repo`` is ``hf:``, anything that looks like a path (absolute, ``./``, ``~`` or ending in .gguf) is
    ``file:``; a path is the user's own affair, ``..`` included. Raises `InvalidRequest` for anything else, for ``..``
    in names of others, control characters and over-long input.
    """
    text = (aliases or {}).get(text, text)
    if not text.strip():
        raise InvalidRequest.bad_reference(text, "it is empty")
    if len(text.removeprefix("file:")) > MAX_LENGTH:  # so that a bare path stays valid in its canonical spelling
        raise InvalidRequest.bad_reference(text, f"it is longer than {MAX_LENGTH} characters")
    if any(not c.isprintable() for c in text):
        raise InvalidRequest.bad_reference(text, "it contains control characters")
    if match := _SCHEME.match(text):
        return _parse_scheme(text, match[1], text[match.end() :])
    if is_path(text):
        return ModelRef("file", path=re.sub("^/+", "/", text))
    if _REPO.fullmatch(text):
        return _parse_hf(text, text)
    raise InvalidRequest.bad_reference(text, "it is no path, no org/repo and no known alias")


def is_path(text: str) -> bool:
    """Return whether `text`, unless it is an alias, names a file or folder: a bare path, or a ``file:`` reference."""
    if match := _SCHEME.match(text):
        return match[1] == "file"
    return text.startswith(("/", "./", "../", "~")) or text.lower().endswith(".gguf")


def _parse_scheme(text: str, scheme: str, rest: str) -> ModelRef:
    if scheme == "hf":
        return _parse_hf(text, rest)
    if scheme == "pkg":
        match = _DIST_FILE.fullmatch(rest)
        if not match or ".." in rest:
            raise InvalidRequest.bad_reference(text, "expected pkg:distribution/file")
        return ModelRef("pkg", owner=match[1], path=match[2])
    if scheme == "file":
        path = rest.removeprefix("//") if rest.startswith("///") else rest
        if not path or path.startswith("//"):
            raise InvalidRequest.bad_reference(text, "expected file:///absolute/path or file:path")
        return ModelRef("file", path=path)
    return ModelRef(scheme, path=rest)


def _parse_hf(text: str, rest: str) -> ModelRef:
    repo, colon, quant = rest.partition(":")
    match = _REPO.match(repo)
    if not match or any(part.startswith(".") or ".." in part for part in repo.split("/")):
        raise InvalidRequest.bad_reference(text, "expected hf:org/repo, hf:org/repo:QUANT or hf:org/repo/file.gguf")
    tail = repo[match.end() :]
    if colon and (tail or not _QUANT.fullmatch(quant)):
        raise InvalidRequest.bad_reference(text, f"{quant!r} is no quantisation")
    if tail and not (tail.startswith("/") and _FILE.fullmatch(tail[1:])):
        raise InvalidRequest.bad_reference(text, "the file's name has characters that are not allowed")
    return ModelRef("hf", owner=match[1], name=match[2], path=tail.removeprefix("/"), quant=quant)
