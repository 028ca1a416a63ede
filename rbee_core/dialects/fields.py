"""Tables of what a codec does with each field of a foreign request. The reference's pages are written from them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from rbee_core import wire
from rbee_core.errors import InvalidRequest, NotSupported, RbeeError

T = TypeVar("T", bound=Struct)
_HEAD = re.compile(r"(\w*)(.*)", re.DOTALL)
_AT = re.compile(r" - at `\$\.?(?:\.\.\.)?([^`]*)`")


class Foreign(Struct, kw_only=True):
    """Base of foreign requests: what they do not know is ignored, as their own servers do."""


class Field(Struct, frozen=True):
    """One field of a foreign request. `note` says how it is honoured, or why not."""

    name: str
    fate: Literal["honoured", "ignored", "refused"]
    note: str = ""


def honoured(*names: str, note: str = "") -> tuple[Field, ...]:
    """Return rows of fields that do what they say."""
    return tuple(Field(name, "honoured", note) for name in names)


def ignored(*names: str, note: str = "") -> tuple[Field, ...]:
    """Return rows of fields that may be there and change nothing."""
    return tuple(Field(name, "ignored", note) for name in names)


def refused(*names: str, note: str) -> tuple[Field, ...]:
    """Return rows of fields that are refused by name: an answer without them would be another than was asked for."""
    return tuple(Field(name, "refused", note) for name in names)


def read(body: bytes, shape: type[T], table: Sequence[Field]) -> T:
    """Return a body as `shape`. Raises `InvalidRequest` with the field's name, for a field that is refused too."""
    said = wire.decode(body, dict[str, Any])
    for row in table:
        if row.fate == "refused" and said.get(row.name) not in (None, False, "", [], {}):
            raise refusal(row.name, row.note)
    try:
        return msgspec.convert(said, shape)
    except msgspec.ValidationError as error:
        invalid = InvalidRequest(f"Invalid request: {error}")
        field = param_of(invalid)
        raise wrong(field, _AT.sub("", str(error))) if field else invalid from None


def refusal(field: str, why: str) -> InvalidRequest:
    """Return the error of a field that is not supported, with the same code as what a backend cannot do."""
    error = InvalidRequest(f"`{field}` is not supported: {why}", hint="leave it out")
    error.code, error.details = NotSupported.code, {"param": field}
    return error


def wrong(field: str, why: str) -> InvalidRequest:
    """Return the error of a field whose value is wrong."""
    error = InvalidRequest(f"Invalid `{field}`: {why}")
    error.details = {"param": field}
    return error


def param_of(error: RbeeError) -> str | None:
    """Return the name of the field that an error is about, if it is known."""
    if said := error.details.get("param"):
        return str(said)
    found = _AT.search(error.message)
    return found[1] or None if found else None


def renamed(error: InvalidRequest, names: Iterable[tuple[str, str]]) -> InvalidRequest:
    """Return `error` about the internal request in the words of the foreign one: each (ours, theirs)."""
    found = _HEAD.match(param_of(error) or "")
    head, rest = found.groups() if found else ("", "")
    theirs = dict(names).get(head, head) + rest
    message = _AT.sub("", error.message)
    return wrong(theirs, message.removeprefix("Invalid request: ")) if theirs else error


def as_internal(shape: type[T], names: Iterable[tuple[str, str]] = (), /, **fields: Any) -> T:
    """Build an internal request with the wire's own checks; those that are None count as not given.

    Raises `InvalidRequest` about the foreign field, by `names` of (ours, theirs).
    """
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return msgspec.convert(given, shape)
    except msgspec.ValidationError as error:
        raise renamed(InvalidRequest(f"Invalid request: {error}"), names) from None
