"""What shapes are made of: two bases, common types, the one error, and turning bytes into a struct and back."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from rbee_core.errors import InvalidRequest, RbeeError, shorten

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
RequestId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?![\s\S])")]  # `$` alone would let a line break follow
ModelText = Annotated[str, Meta(min_length=1, max_length=4096)]


class Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of what we receive as a server: a misspelled key is an error, not a default."""


class Lenient(Struct, kw_only=True):
    """Base of what we receive as a client: a newer server may say more."""


class ErrorObject(Lenient):
    """An error, wherever one is told: behind `error` in bodies, events, workers and downloads. The hint is a detail.

    `http_status` is None where the other side did not say it.
    """

    code: str
    message: str
    details: dict[str, Any] = {}
    http_status: Annotated[int, Meta(ge=400, le=599)] | None = None

    @classmethod
    def of(cls, error: RbeeError) -> Self:
        """Return `error` as it travels; `RemoteError.of` is the way back."""
        return cls(**error.as_data())


class ErrorBody(Lenient):
    """The body of every answer that is an error."""

    error: ErrorObject


T = TypeVar("T")
DEPTH = 128
"""So deep may a body be nested: all that walk through it afterwards, here and in a worker, have room for that."""
_AS_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def decode(data: bytes, shape: type[T]) -> T:
    """Decode a request body. Raises `InvalidRequest` whatever is wrong with it."""
    try:
        decoded = msgspec.json.decode(data, type=shape)
        json.loads(data, object_pairs_hook=_once_each)
        _check_depth(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"Invalid request: {error}") from None
    return decoded


def _check_depth(data: bytes) -> None:
    """Refuse JSON, which is sound, that is nested too deep; what has few brackets is not looked at."""
    if data.count(b"[") + data.count(b"{") <= DEPTH:
        return
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(_AS_ONE_KIND, _NO_BRACKETS)
    for _ in range(DEPTH):  # each time without the innermost ones
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise ValueError(f"it is nested more than {DEPTH} deep")


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that says a name twice: which one counts, two readers may see differently."""
    if len({name for name, _ in pairs}) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"`{shorten(twice, 40)}` stands twice in one object")


def check(text: str, shape: Any) -> str:
    """Return `text`, a part of a path, if it has the shape. Raises `InvalidRequest`."""
    try:
        return msgspec.convert(text, shape)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise InvalidRequest(f"Invalid request: {error}") from None


def build(shape: type[T], name: Callable[[str], str] = str, /, **fields: Any) -> T:
    """Build a request from loose values with the same checks as `decode`; those that are None count as not given.

    Raises `InvalidRequest`, which calls a field that is wrong by what `name` returns for it.
    """
    given = {field: value for field, value in fields.items() if value is not None}
    try:
        built = msgspec.convert(given, type=shape)
        msgspec.json.encode(built)
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8 cannot travel
        wrong = next((field for field, value in given.items() if _cannot_travel(value)), "request")
        raise InvalidRequest(f"Invalid {name(wrong)}: it is not valid UTF-8") from None
    except ValueError as error:
        types = {field.name: field.type for field in msgspec.structs.fields(shape)}  # pyright: ignore[reportArgumentType]
        for field in types.keys() & given.keys():
            if why := _misfit(given[field], types[field]):
                raise InvalidRequest(f"Invalid {name(field)}: {why}") from None
        raise InvalidRequest(f"Invalid request: {error}") from None
    return built


def _cannot_travel(value: Any) -> bool:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        return True
    return False


def _misfit(value: Any, kind: Any) -> str:
    try:
        msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        why = str(error).partition(" - at ")[0]  # what is within the value, its giver can find
        return why[0].lower() + why[1:].replace(" | null", "")  # how to say nothing, everybody knows
    return ""


def encode(value: Any) -> bytes:
    """Return a struct or plain value as JSON. What is no Unicode text, as names of files may be, is escaped."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_escaped(msgspec.to_builtins(value)))


def _escaped(value: Any) -> Any:
    """Return a plain value with lone surrogates written as escapes: the byte that one stands for stays legible."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_escaped(k): _escaped(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return [_escaped(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


to_builtins = msgspec.to_builtins
