"""The root of the error tree, the error of the other side, and what all errors use."""

from collections.abc import Iterator
from typing import Any, Self


class RbeeError(Exception):
    """Root of the tree: one sentence for a person, a hint, and details for a program.

    `message` says what happened and why, `hint` what to do; `details` must be JSON values.
    """

    code: str = "INTERNAL"
    http_status: int = 500
    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        self.details: dict[str, Any] = details

    def __str__(self) -> str:
        return self.message

    def __copy__(self) -> Self:
        """Return the same error as another object: one that is raised in two tasks would mix up their tracebacks."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.__cause__ = self.__cause__
        return twin

    def body(self) -> dict[str, Any]:
        """Return the error as the wire's `{"error": {code, message, details}}` object."""
        details = {**self.details, **({"hint": self.hint} if self.hint else {})}
        return {"error": {"code": self.code, "message": self.message, "details": details}}


class RemoteError(RbeeError):
    """Raised by the client: an error that the other side answered with, unchanged."""

    def __init__(self, *, code: str, message: str, http_status: int, details: dict[str, Any]) -> None:
        rest = dict(details)
        hint = str(rest.pop("hint", ""))
        super().__init__(message, hint=hint)
        self.details = rest  # whatever its keys are called
        self.code, self.http_status = code, http_status
        self.exit_code = next((c.exit_code for c in error_classes() if c.code == code), 1)


def error_classes() -> Iterator[type[RbeeError]]:
    """Yield every public class of the tree that fixes a code of its own, root first."""
    pending: list[type[RbeeError]] = [RbeeError]
    while pending:
        cls = pending.pop(0)
        pending.extend(cls.__subclasses__())
        if "code" in vars(cls):
            yield cls


def shorten(text: str, limit: int = 200) -> str:
    """Return `text` fit for one line of an error: bounded, without control characters."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
