"""What schemathesis is told about a hive: a model that exists, and which answers are no bugs. Its process imports this.

A 5xx that carries a code of ours says that something is not there, or is full; a bug is INTERNAL, or says no code.
"""

import json
import os
from importlib import import_module
from typing import Any

schemathesis: Any = import_module("schemathesis")
hypothesis: Any = import_module("hypothesis.strategies")

MODEL = os.environ["RBEE_FUZZ_MODEL"]
NAMES = ("model", "model_ref")


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Have most bodies that name a model name one that answers; the others name what is not there."""
    if isinstance(body, dict):
        for name in NAMES:
            if isinstance(body.get(name), str) and len(body[name]) % 4:
                body[name] = MODEL
    return body


@schemathesis.check
def no_bug_of_ours(context: Any, response: Any, case: Any) -> None:
    """Refuse a 5xx without a code of ours."""
    if response.status_code >= 500:
        code = code_of(response.content)
        assert code not in ("", "INTERNAL"), f"{response.status_code} with {response.content[:500]!r}"


def code_of(content: bytes) -> str:
    """Return the code of an error in whichever dialect; 503 of GET /v1/ready tells its state instead."""
    try:
        said = json.loads(content)
    except ValueError:
        return ""
    error = said.get("error") if isinstance(said, dict) else None
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or "")
    return str(said.get("code") or said.get("state") or "") if isinstance(said, dict) else ""
