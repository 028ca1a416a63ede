"""What the reference claims is what the code says: settings, variables, error codes, routes."""

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from rbee_core import wire
from rbee_core.domain.model_settings import FIELDS
from rbee_core.domain.sampling import Sampling
from rbee_core.errors import error_classes
from rbee_core.hive.dialects.table import TABLE as HIVE
from rbee_core.http.routes import Route
from rbee_core.settings import NAMES, Settings
from rbee_core.wire.workers import WorkerStateName
from rbee_core.worker.server import TABLE as WORKER
from scripts import routes_page
from scripts.http_reference import dialect_written, dialects, written

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
SETTINGS = {f.name: f for f in dataclasses.fields(Settings) if f.name in NAMES}


def rows(name: str) -> list[list[str]]:
    """Return the cells of every table row of a page, without headings."""
    lines = (REFERENCE / name).read_text(encoding="utf-8").splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if not set(row[0]) <= set("-: ")]


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in rows("settings.md")[1:] if len(row) == 3}
    assert documented.pop("home") == "~/.rbee"
    assert documented == {name: "" if field.default is None else str(field.default) for name, field in SETTINGS.items()}


def test_everything_that_can_be_settled_for_a_model_is_documented() -> None:
    documented = {name for row in rows("settings.md") if len(row) == 2 for name in re.findall(r"`(\w+)`", row[0])}
    assert documented <= FIELDS.keys()
    assert [name for name, kind in FIELDS.items() if kind is not Sampling and name not in documented] == []


def test_every_variable_in_the_source_is_documented() -> None:
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    used = {
        name
        for path in (ROOT / "rbee_core").rglob("*.py")
        for name in re.findall(r"\bRBEE_[A-Z][A-Z_]+\b", path.read_text(encoding="utf-8"))
    }
    from_settings = {f"RBEE_{name.upper()}" for name in SETTINGS}
    internal = {"RBEE_INSTANCE"}
    assert sorted(n for n in used - from_settings - internal if n not in text) == []


def test_every_error_code_is_documented() -> None:
    documented = {row[0]: (int(row[1]), int(row[2])) for row in rows("errors.md")[1:] if row[0].isupper()}
    assert documented == {cls.code: (cls.http_status, cls.exit_code) for cls in error_classes()}


def test_every_route_is_documented() -> None:
    page = (REFERENCE / "http.md").read_text(encoding="utf-8")
    assert written(page) == page, "run `python scripts/http_reference.py`"
    assert len(rows("http.md")) > len(HIVE) + len(WORKER)


def test_n11_every_route_is_shown_with_its_body_its_answers_and_a_line_that_asks_for_it() -> None:
    page = (REFERENCE / "routes.md").read_text(encoding="utf-8")
    assert routes_page.page() == page, "run `python scripts/http_reference.py`"
    assert page.count("\ncurl ") == len(HIVE)
    links = set(re.findall(r"\]\(#([\w-]+)\)", page))
    assert links <= {re.sub(r"[^\w -]", "", head).lower() for head in re.findall(r"^### (.+)$", page, re.MULTILINE)}


@pytest.mark.parametrize("row", [row for row in HIVE if row.body], ids=lambda row: row.plain_path)
def test_the_body_of_a_line_of_curl_is_one(row: Route) -> None:
    assert row.body
    wire.decode(json.dumps(routes_page.EXAMPLES[row.body.__name__]).encode(), row.body)


def test_every_state_of_a_worker_is_explained() -> None:
    assert list(routes_page.STATES) == list(get_args(WorkerStateName))


@pytest.mark.parametrize("name", dialects())
def test_what_a_dialects_page_says_of_fields_is_what_its_codecs_say(name: str) -> None:
    page = (REFERENCE / name).read_text(encoding="utf-8")
    assert dialect_written(name, page) == page, "run `python scripts/http_reference.py`"


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "rbee_core").rglob("*.md")]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_that_a_document_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(
        r"`((?:rbee_core|rbee_plugins|tests|features|step_defs|docs)/[\w/.-]+\.(?:py|md|feature))`", text
    )
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_event_and_instruction_that_the_design_names_is_one() -> None:
    from rbee_core.domain import events, instructions

    text = (ROOT / "rbee_core/hive/design.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[A-Z][a-z]+[A-Z]\w+", text))
    assert len(named) > 6
    assert [name for name in sorted(named) if not hasattr(events, name) and not hasattr(instructions, name)] == []
