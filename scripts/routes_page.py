"""docs/reference/routes.md, whole: what each route takes and answers, with a line of curl, from rows and shapes."""

import json
from http import HTTPStatus

EMBEDDING = "hf:nomic-ai/nomic-embed-text-v1.5-GGUF:Q4_K_M"
RERANKER = "hf:gpustack/bge-reranker-v2-m3-GGUF:Q4_K_M"
EXAMPLES = {
    "ChatBody": {"model": "smollm2", "messages": [{"role": "user", "content": "What is 2 + 2?"}]},
    "CompletionBody": {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 16},
    "CountBody": {"model": "smollm2", "messages": [{"role": "user", "content": "What is 2 + 2?"}]},
    "DownloadCancel": {"model_ref": "tinyllama"},
    "DownloadRequest": {"model_ref": "tinyllama"},
    "EmbedBody": {"model": EMBEDDING, "input": ["a bee", "a train"]},
    "EmbeddingBody": {"model": EMBEDDING, "input": ["a bee", "a train"]},
    "EmbeddingsBody": {"model": EMBEDDING, "prompt": "a bee"},
    "GenerateBody": {"model": "smollm2", "prompt": "What is 2 + 2?"},
    "MessagesBody": {
        "model": "smollm2",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": "What is 2 + 2?"}],
    },
    "PinRequest": {"pinned": True},
    "PoolEmbed": {"model_ref": EMBEDDING, "texts": ["a bee", "a train"]},
    "PoolInference": {"model_ref": "smollm2", "prompt": "Once upon a time", "max_tokens": 16},
    "PoolRerank": {"model_ref": RERANKER, "query": "what makes honey", "documents": ["a bee", "a train"]},
    "Prompted": {"model": "smollm2", "messages": [{"role": "user", "content": "What is 2 + 2?"}]},
    "PullBody": {"model": "hf.co/TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M"},
    "RerankBody": {"model": RERANKER, "query": "what makes honey", "documents": ["a bee", "a train"]},
    "ResponsesBody": {"model": "smollm2", "input": "What is 2 + 2?"},
    "RetryRequest": {"model_ref": "smollm2"},
    "Show": {"model": "smollm2"},
    "SpawnRequest": {"model_ref": "smollm2"},
    "WorkerEmbed": {"texts": ["a bee", "a train"]},
    "WorkerInference": {"prompt": "Once upon a time", "max_tokens": 16},
    "WorkerReady": {
        "worker_id": "worker-abc123",
        "url": "http://127.0.0.1:40001",
        "model_ref": "file:/models/a.gguf",
        "backend": "llamacpp-cpu",
        "device": "cpu",
    },
    "WorkerRerank": {"query": "what makes honey", "documents": ["a bee", "a train"]},
}
PLACES = {"worker_id": "worker-abc123", "request_id": "my-request", "reference": "smollm2"}
WITH_A_BODY = {"/api/delete": {"model": "smollm2"}}
STATES = {
    "loading": "its process was started, or reads the model",
    "idle": "it holds the model and no request",
    "busy": "it holds requests",
    "stopping": "it was told to stop: running requests end, new ones go elsewhere",
    "unloaded": "it was stopped because somebody asked, or the hive stopped",
    "evicted": "it was stopped to give its memory back, or because nobody needed it",
    "crashed": "its process ended by itself after it was ready",
    "failed": "it never became ready",
}
EVERYWHERE = {"INVALID_API_KEY", "ACCESS_DENIED", "INTERNAL", "PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
HEAD = """\
# Routes, one by one

Written by `scripts/http_reference.py` from the rows that a hive serves. [http.md](http.md) has what holds for all of
them: access, streams, errors. What a dialect does with each field of a body is in [openai.md](openai.md),
[anthropic.md](anthropic.md) and [ollama.md](ollama.md).

The lines are for a hive without a key; where there is one, add `-H "Authorization: Bearer $RBEE_API_KEY"`. Not repeated
for each: 401 `INVALID_API_KEY` from all whose scope is not open, 403 `ACCESS_DENIED` and 500 `INTERNAL` from all, 413
`PAYLOAD_TOO_LARGE` and 415 `UNSUPPORTED_MEDIA_TYPE` from every POST.

## Routes
"""


def page():
    """Return the page."""
    from rbee_core.hive.dialects.table import TABLE
    from rbee_core.http import openapi

    told = openapi.document(TABLE, "rbee", "", "")
    parts = [HEAD, *(route(row, told) for row in TABLE), states(), "## Shapes\n"]
    shapes = told["components"]["schemas"]
    parts += [shape(name, shapes[name]) for name in sorted(shapes)]
    return "\n".join(parts)


def route(row, told):
    operation = told["paths"][row.plain_path][row.method.lower()]
    lines = [
        f"### {row.method} {row.plain_path}",
        "",
        f"{row.summary[0].upper()}{row.summary[1:]}. Scope {row.scope}.",
        "",
    ]
    lines += ["```", curl(row), "```", ""]
    if row.query:
        lines += [f"Query: {linked(row.query.__name__)}.", ""]
    if row.body:
        lines += [f"Takes {of(content(operation['requestBody']))}.", ""]
    lines += ["| Status | |", "|---|---|"]
    answers = {status: answer(row, int(status), said) for status, said in operation["responses"].items()}
    lines += [f"| {status} | {said} |" for status, said in answers.items() if said]
    return "".join(f"{line}\n" for line in lines)


def answer(row, status, said):
    """Return what an answer with this status has in it."""
    if status == 200 and row.events:
        return f"events: {', '.join(linked(one.__name__) for one in row.events)}"
    good = ""
    if status in row.answers:
        shape = row.answers[status]
        good = HTTPStatus(status).phrase.lower() if shape is None else linked(shape.__name__)
        good += f", or a stream (`{row.stream}`)" if row.stream else ""
    codes = said["description"].split(" or ") if "allOf" in json.dumps(said) else []
    return " or ".join(filter(None, [good, ", ".join(f"`{code}`" for code in codes if code not in EVERYWHERE)]))


def content(said):
    return said["content"]["application/json"]["schema"]


def curl(row):
    """Return the line that asks for this, with a body that is one."""
    path = row.plain_path.format(**PLACES)
    words = ["curl", *(["-N"] if row.events or row.stream else [])]
    words += [] if row.method == "GET" or (row.method == "POST" and row.body) else ["-X", row.method]
    query = {"id": "download-1", "model": "smollm2"} if row.query else {}
    wanted = [f"{name}={query[name]}" for name in required(row.query) if name in query]
    words += [f"'localhost:7835{path}?{'&'.join(wanted)}'" if wanted else f"localhost:7835{path}"]
    if row.scope == "worker":  # the secret that it was started with
        words += ["-H", "'Authorization: Bearer …'"]
    body = EXAMPLES[row.body.__name__] if row.body else WITH_A_BODY.get(row.plain_path)
    if body is not None:
        words += ["-H 'Content-Type: application/json' \\\n ", f"-d '{json.dumps(body)}'"]
    return " ".join(words)


def required(shape):
    import msgspec

    return [field.name for field in msgspec.structs.fields(shape) if field.required] if shape else []


def states():
    from typing import get_args

    from rbee_core.wire.workers import WorkerStateName

    lines = [
        "## States of a worker",
        "",
        "A state never goes back; the last four are ends.",
        "",
        "| State | |",
        "|---|---|",
    ]
    lines += [f"| `{name}` | {STATES[name]} |" for name in get_args(WorkerStateName)]
    return "".join(f"{line}\n" for line in lines)


def linked(name):
    plain = {"dict": "an object", "str": "text"}
    return plain.get(name) or f"[{name}](#{name.lower().replace('.', '')})"


def shape(name, schema):
    """Return the fields of a shape as a table."""
    if "properties" not in schema:
        return ""
    lines = [f"### {name}", ""]
    if said := schema.get("description"):
        lines += [" ".join(said.split("\n\n")[0].split()).rstrip(".") + ".", ""]
    if not schema["properties"]:
        return "".join(f"{line}\n" for line in [*lines, "It has no fields."])
    lines += ["| Field | | |", "|---|---|---|"]
    needed = schema.get("required", [])
    for field, kind in schema["properties"].items():
        lines.append(f"| `{field}` | {of(kind)} | {'required' if field in needed else default(kind)} |")
    return "".join(f"{line}\n" for line in lines)


def default(kind):
    if "default" not in kind or kind["default"] in (None, "", [], {}):
        return ""
    return f"default `{json.dumps(kind['default'], ensure_ascii=False)}`"


def of(kind):
    """Return in words what values a schema allows."""
    if "$ref" in kind:
        return linked(kind["$ref"].rpartition("/")[2])
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(of(one) for one in kind["anyOf"] if one.get("type") != "null"))
    if "enum" in kind:
        return " or ".join(f"`{one}`" for one in kind["enum"])
    if "const" in kind:
        return f"`{kind['const']}`"
    if kind.get("type") == "array":
        return f"list of {of(kind.get('items', {})) if kind.get('items') else 'anything'}{bounds(kind)}"
    return f"{kind.get('type', 'anything')}{bounds(kind)}"


def bounds(kind):
    said = []
    for key, word in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")):
        said += [f"{word} {kind[key]}"] if key in kind else []
    for least, most, what in (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items")):
        if least in kind or most in kind:
            said.append(f"{kind.get(least, 0)} to {kind.get(most, 'any number of')} {what}")
    return f", {', '.join(said)}" if said else ""
