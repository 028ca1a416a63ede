"""How this dialect says an error."""

from typing import Any, TypedDict

from rbee_core.dialects.fields import param_of
from rbee_core.errors import RbeeError

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    507: "overloaded_error",
}


class AnthropicErrorObject(TypedDict):
    """What clients of this dialect read, and beside it what ours do."""

    type: str
    message: str
    code: str
    param: str | None
    details: dict[str, Any]
    http_status: int


class AnthropicError(TypedDict):
    """The body of an answer, and the event of a stream, that is an error."""

    type: str
    error: AnthropicErrorObject
    request_id: str | None


def error_body(error: RbeeError, request_id: str | None = None) -> AnthropicError:
    """Return the body of an answer, or of an event, that says `error`: with our code, and what to do in the message.

    Where the request's name is left open, the server's door fills it in.
    """
    status = error.http_status
    kind = KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    told: AnthropicErrorObject = {
        "type": kind,
        "message": message,
        "code": error.code,
        "param": param_of(error),
        "details": error.details,
        "http_status": status,
    }
    return {"type": "error", "error": told, "request_id": request_id}
