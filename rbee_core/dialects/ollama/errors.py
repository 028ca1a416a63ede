"""How this dialect says an error."""

from typing import Any, TypedDict

from rbee_core.errors import RbeeError


class OllamaError(TypedDict):
    """An error: a sentence, where others have an object."""

    error: str
    code: str
    details: dict[str, Any]


def error_body(error: RbeeError) -> OllamaError:
    """Return the body of an answer, or of a line, that says `error`: a sentence, with our code beside it."""
    sentence = f"{error.message}; {error.hint}" if error.hint else error.message
    return {"error": sentence, "code": error.code, "details": error.details}
