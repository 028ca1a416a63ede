"""Write docs/reliability.md from tests/promises.toml: what rbee promises, and the tests that show it."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISES = ROOT / "tests" / "promises.toml"
PAGE = ROOT / "docs" / "reliability.md"

HEAD = """# Reliability

What rbee promises when things go wrong, and what shows it: tests, which `pytest FILE -k NAME` runs, or scenarios of
`features/`. Nothing is promised here that none of them shows.

Written by `python scripts/reliability.py` from `tests/promises.toml`. A test fails when the two differ, when a test
that is named here is gone, or when a fault that was found once is mended without its promise.
"""

KEPT = """
## Kept as it is

Found, looked at, and left, each for its reason.

"""


def main():
    PAGE.write_text(written(read()), encoding="utf-8")


def read():
    """Return the table of promises as it stands in its file."""
    return tomllib.loads(PROMISES.read_text(encoding="utf-8"))


def split(test):
    """Return a test's file, below the clone, and its name."""
    if "::" in test:
        file, name = test.split("::")
        return f"tests/{file}", name
    file, name = test.split(": ", 1)
    return f"features/{file}", name


def written(table):
    """Return the page."""
    groups = "".join(f"\n## {group['title']}\n\n{promises(group['promise'])}" for group in table["group"])
    return HEAD + groups + KEPT + "".join(f"- {kept['what']} {kept['why']}\n" for kept in table["kept"])


def promises(rows):
    return "".join(f"- **{row['says']}**\n{shown_by(row['tests'])}" for row in rows)


def shown_by(tests):
    files = {}
    for test in tests:
        file, name = split(test)
        files.setdefault(file, []).append(f"`{name}`" if file.endswith(".py") else f"“{name}”")
    return "".join(f"  - [{Path(file).name}](../{file}): {', '.join(names)}\n" for file, names in files.items())


if __name__ == "__main__":
    sys.exit(main())
