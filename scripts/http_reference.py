"""Write the tables of docs/reference: routes, from the rows that are served, and a dialect's fields, from its codec."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from scripts import routes_page

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
PAGE = REFERENCE / "http.md"
PLAIN = {"dict": " an object", "str": " text"}
PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def main():
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written(text), encoding="utf-8")
    (REFERENCE / "routes.md").write_text(routes_page.page(), encoding="utf-8")
    for name in dialects():
        page = REFERENCE / name
        page.write_text(dialect_written(name, page.read_text(encoding="utf-8")), encoding="utf-8")


def dialects():
    """Return by the name of a dialect's page the tables of its codecs, each with the heading that it stands under."""
    from rbee_core.dialects.anthropic import requests
    from rbee_core.dialects.ollama import embed, pull, work
    from rbee_core.dialects.ollama.models import SHOW
    from rbee_core.dialects.openai import chat, completions, embeddings, rerank
    from rbee_core.dialects.responses.requests import FIELDS

    openai = {
        "Chat": chat.FIELDS,
        "Completions": completions.FIELDS,
        "Embeddings": embeddings.FIELDS,
        "Reranking": rerank.FIELDS,
    }
    anthropic = {"Messages": requests.FIELDS, "Counting": requests.PROMPT_FIELDS}
    ollama = {
        "One model": SHOW,
        "Chat": work.CHAT,
        "Completion": work.GENERATE,
        "Vectors": embed.EMBED,
        "One vector": embed.EMBEDDINGS,
        "Fetching": pull.PULL,
        "Removing": pull.DELETE,
    }
    return {"openai.md": openai, "responses.md": {"Fields": FIELDS}, "anthropic.md": anthropic, "ollama.md": ollama}


def dialect_written(name, text):
    """Return a dialect's page with its tables as the codecs have them."""
    for title, rows in dialects()[name].items():
        text = replaced(text, title, fields_table(rows))
    return text


def fields_table(rows):
    lines = ["| Field | | |", "|---|---|---|"]
    lines += [f"| `{row.name}` | {row.fate} | {row.note} |" for row in rows]
    return "".join(f"{line}\n" for line in lines)


def replaced(text, title, table):
    found = re.compile(rf"(^## {title}\n(?:(?!\|).*\n)*)(?:\|.*\n)+", re.MULTILINE)
    return found.sub(lambda match: match[1] + table, text)


def written(text):
    """Return the page with its tables as the programs say."""
    from rbee_core.hive.dialects.table import TABLE as HIVE
    from rbee_core.worker.server import TABLE as WORKER

    for title, rows in (("Hive", HIVE), ("Worker", WORKER)):
        text = replaced(text, title, as_table(rows))
    return text


def as_table(rows):
    lines = ["| Route | Scope | Takes | Answers | What |", "|---|---|---|---|---|"]
    lines += [f"| `{r.method} {r.plain_path}` | {r.scope} | {takes(r)} | {answers(r)} | {r.summary} |" for r in rows]
    return "".join(f"{line}\n" for line in lines)


def takes(row):
    query = f"`?{' &'.join(f'{name}=' for name in row.query.__struct_fields__)}`" if row.query else ""
    body = f"`{row.body.__name__}`" if row.body else ""
    return query or body


def answers(row):
    if row.events:
        return f"events: {', '.join(f'`{shape.__name__}`' for shape in row.events)}"
    said = {}
    for status, shape in row.answers.items():
        name = "" if shape is None else PLAIN.get(shape.__name__) or f" `{shape.__name__}`"
        said.setdefault(name, []).append(str(status))
    return ", ".join("/".join(statuses) + name for name, statuses in said.items())


if __name__ == "__main__":
    sys.exit(main())
