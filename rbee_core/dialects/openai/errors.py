"""How this dialect says an error."""

from typing import Any, TypedDict

from rbee_core.dialects.fields import param_of
from rbee_core.errors import RbeeError

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error"}


class OpenAiErrorObject(TypedDict):
    """What clients of this dialect read, and beside it what ours do."""

    message: str
    type: str
    param: str | None
    code: str
    details: dict[str, Any]
    http_status: int


class OpenAiError(TypedDict):
    """The body of an answer, and the event of a stream, that is an error."""

    error: OpenAiErrorObject


def error_body(error: RbeeError) -> OpenAiError:
    """Return the body of an answer, or of an event, that says `error`: with our code, and what to do in the message."""
    status = error.http_status
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    told: OpenAiErrorObject = {
        "message": message,
        "type": kind,
        "param": param_of(error),
        "code": error.code,
        "details": error.details,
        "http_status": status,
    }
    return {"error": told}
