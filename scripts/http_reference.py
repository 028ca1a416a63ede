"""Write the tables of routes into docs/reference/http.md from the rows that the programs serve."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "http.md"
PARAMETER = re.compile(r"\{(\w+)(?::[^}]*)?\}")


def main():
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written(text), encoding="utf-8")


def written(text):
    """Return the page with its tables as the programs say."""
    from rbee_core.hive.api.table import TABLE as HIVE
    from rbee_core.worker.server import TABLE as WORKER

    for title, rows in (("Hive", HIVE), ("Worker", WORKER)):
        table = re.compile(rf"(^## {title}\n(?:(?!\|).*\n)*)(?:\|.*\n)+", re.MULTILINE)
        text = table.sub(lambda found, rows=rows: found[1] + as_table(rows), text)
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
        name = "" if shape is None else " an object" if shape.__name__ == "dict" else f" `{shape.__name__}`"
        said.setdefault(name, []).append(str(status))
    return ", ".join("/".join(statuses) + name for name, statuses in said.items())


if __name__ == "__main__":
    sys.exit(main())
