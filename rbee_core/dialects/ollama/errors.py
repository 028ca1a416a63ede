"""How this dialect says an error."""

from typing import Any

from rbee_core.errors import RbeeError


def error_body(error: RbeeError) -> dict[str, Any]:
    """Return the body of an answer, or of a line, that says `error`: a sentence, with our code beside it."""
    sentence = f"{error.message}; {error.hint}" if error.hint else error.message
    return {"error": sentence, "code": error.code, "details": error.details}
