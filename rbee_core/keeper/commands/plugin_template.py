"""The package that `rbee plugins new` writes.

Its files stand in `plugin_files`, with NAME and MODULE in place of names. A file's place in the package is its place
there; `dot-` begins a hidden name, and `.in` ends all of them so that no tool takes them for files of rbee's own.
"""

import re
from collections.abc import Container, Iterator
from pathlib import Path

from rbee_core.errors import InvalidRequest, RbeeError

FILES = Path(__file__).parent / "plugin_files"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_LENGTH = 40
WORDS = ("cpu", "cuda", "metal", "hf", "file", "pkg")
"""Names that mean something else on rbee's command line."""


def check_name(name: str, taken: Container[str]) -> None:
    """Raise `InvalidRequest` for a name that no backend can have, or that another has."""
    if not NAME.fullmatch(name) or len(name) > MAX_LENGTH:
        raise InvalidRequest(
            f"{name!r} is no name for a backend",
            hint=f"use lower-case letters, digits and single dashes, a letter first, at most {MAX_LENGTH} characters",
        )
    if name in WORDS or name in taken:
        raise InvalidRequest(f"The name {name} is taken", hint="`rbee backends` lists the names of backends")


def distribution(name: str) -> str:
    """Return the name of the package for the backend `name`."""
    return f"rbee-backend-{name}"


def commands(name: str) -> tuple[str, ...]:
    """Return the commands that use the generated backend, and tell whether it keeps the contract."""
    which = f"--backend {name} --model {name}:demo"
    return f"rbee infer {which} --prompt Hello", f"pytest --pyargs rbee_kit {which}"


def write(name: str, folder: Path) -> list[Path]:
    """Write the package into the new `folder` and return its files. Raises `RbeeError` if `folder` is there."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise RbeeError(f"{folder} is there already", hint="choose another place with --directory") from error
    written: list[Path] = []
    for relative, text in _files(name):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _files(name: str) -> Iterator[tuple[Path, str]]:
    def filled(text: str) -> str:
        return text.replace("MODULE", distribution(name).replace("-", "_")).replace("NAME", name)

    for path in sorted(FILES.rglob("*.in")):
        place = str(path.relative_to(FILES)).removesuffix(".in").replace("dot-", ".")
        yield Path(filled(place)), filled(path.read_text(encoding="utf-8"))
