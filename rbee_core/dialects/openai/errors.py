"""How this dialect says an error."""

from typing import Any

from rbee_core.dialects.fields import param_of
from rbee_core.errors import RbeeError

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error"}


def error_body(error: RbeeError) -> dict[str, Any]:
    """Return the body of an answer, or of an event, that says `error`: with our code, and what to do in the message."""
    status = error.http_status
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    message = f"{error.message}; {error.hint}" if error.hint else error.message
    told = {"message": message, "type": kind, "param": param_of(error), "code": error.code}
    return {"error": told | {"details": error.details, "http_status": status}}
