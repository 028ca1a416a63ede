"""The root of the error tree, the error of the other side, and what all errors use."""

import os
from collections.abc import Iterator
from typing import Any, Protocol, Self

_OWN = __file__.removesuffix("errors/base.py")
_LIBRARY = os.__file__.removesuffix("os.py")


PASSING = frozenset({"ALL_SLOTS_BUSY", "OVERLOADED", "TOO_MANY_DOWNLOADS", "WORKER_NOT_READY", "SHUTTING_DOWN"})
"""Codes of what is over in a moment."""


class ErrorData(Protocol):
    """An error as data: what `rbee_core.wire.ErrorObject` carries between processes."""

    code: str
    message: str
    details: dict[str, Any]
    http_status: int | None


class RbeeError(Exception):
    """Root of the tree: one sentence for a person, a hint, and details for a program.

    `message` says what happened and why, `hint` what to do; `details` must be JSON values. Both sentences may hold
    names that strangers chose: whatever would move a cursor, begin a line or break an encoding is escaped in them.
    """

    code: str = "INTERNAL"
    http_status: int = 500
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        message = escape(message)
        super().__init__(message)
        self.message, self.hint = message, escape(hint)
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        return self.message

    @property
    def mends(self) -> bool:
        """Whether the same request may be answered in a moment, so that asking again by itself makes sense."""
        return self.code in PASSING

    def __copy__(self) -> Self:
        """Return an equal error with its cause, and without the traceback.

        Raising writes into the object raised. So an error that several tasks wait for, or that is kept, is raised as
        a copy: else each gets the others' tracebacks, and holds their frames alive.
        """
        twin = type(self).__new__(type(self), *self.args)
        vars(twin).update(vars(self))
        twin.details = dict(self.details)
        twin.__cause__ = self.__cause__
        return twin

    def as_data(self) -> dict[str, Any]:
        """Return the error as it travels: code, message, details and HTTP status; the hint is one of the details."""
        details = {**self.details, **({"hint": self.hint} if self.hint else {})}
        return {"code": self.code, "message": self.message, "details": details, "http_status": self.http_status}

    def body(self) -> dict[str, Any]:
        """Return the body of an answer, or of an event, that says the error."""
        return {"error": self.as_data()}


class RemoteError(RbeeError):
    """Raised with what the other side said, unchanged: by a client, and by a hive for its workers."""

    def __init__(self, *, code: str, message: str, http_status: int, details: dict[str, Any]) -> None:
        rest = dict(details)
        hint = str(rest.pop("hint", ""))
        super().__init__(message, hint=hint)
        self.details = rest  # whatever its keys are called
        self.code, self.http_status = code, http_status
        self.exit_code = getattr(_class_of(code), "exit_code", 1)

    @classmethod
    def of(cls, error: ErrorData, http_status: int | None = None) -> Self:
        """Return the error that `error` tells of. `http_status` is the answer's, for a side that does not say it."""
        status = error.http_status or http_status or getattr(_class_of(error.code), "http_status", 500)
        return cls(code=error.code, message=error.message, http_status=status, details=error.details)


def _class_of(code: str) -> type[RbeeError] | None:
    return next((cls for cls in error_classes() if cls.code == code), None)


def error_classes() -> Iterator[type[RbeeError]]:
    """Yield every public class of the tree that fixes a code of its own, root first."""
    pending: list[type[RbeeError]] = [RbeeError]
    while pending:
        cls = pending.pop(0)
        pending.extend(cls.__subclasses__())
        if "code" in vars(cls):
            yield cls


def escape(text: str) -> str:
    """Return `text` with every character escaped that is not one to print, such as ``\\x1b`` or a lone surrogate."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def origin(error: BaseException) -> str:
    """Return ``FILE:LINE`` of the code that raised `error`, "" if that is not known.

    That is the innermost place which is neither rbee's nor the standard library's.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith("<"):
            places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    strangers = [p for p in places if not p.startswith(_OWN) and ("-packages" in p or not p.startswith(_LIBRARY))]
    return (strangers or [""])[-1]


def shorten(text: str, limit: int = 200) -> str:
    """Return `text` fit for one line of an error: bounded, without control characters."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
