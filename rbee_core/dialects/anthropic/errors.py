"""How this dialect says an error."""

from typing import Any

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


def error_body(error: RbeeError, request_id: str | None = None) -> dict[str, Any]:
    """Return the body of an answer, or of an event, that says `error`: with our code, and what to do in the message.

    Where the request's name is left open, the server's door fills it in.
    """
    status = error.http_status
    kind = KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    ours = {"code": error.code, "param": param_of(error), "details": error.details, "http_status": status}
    return {"type": "error", "error": {"type": kind, "message": message, **ours}, "request_id": request_id}
