"""What shapes are made of: two bases, common types, the one error, and turning bytes into a struct and back."""

from collections.abc import Callable
from typing import Annotated, Any, Self, TypeVar

import msgspec
from msgspec import Meta, Struct

from rbee_core.errors import InvalidRequest, RbeeError

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


def decode(data: bytes, shape: type[T]) -> T:
    """Decode a request body. Raises `InvalidRequest` whatever is wrong with it."""
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid request: {error}") from None


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
        return why[0].lower() + why[1:]
    return ""


encode = msgspec.json.encode
to_builtins = msgspec.to_builtins
