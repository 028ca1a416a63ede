"""CHECKLIST.md: written from a report, read back, and held against a later run."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from rbee_report.behaviours import BEHAVIOURS, GROUPS
from rbee_report.report import Behaviour, Metrics, Report

SHOWN, NOT_SHOWN = "✅", "❌"
ROW = re.compile(rf"^\| ({SHOWN}|{NOT_SHOWN}) \| (B\d+\.\d) \| (.*?) \|", re.MULTILINE)
ABOUT = """# Checklist

What the product promises, one line a behaviour. This page is a result: `make checklist` runs `features/` and writes it.
✅ means that every scenario with this id as its tag (`pytest -m B5.2`) ran the real programs and passed.
"""
HEADINGS = "| | Id | Behaviour | Scenario | Backend | Model | rbee |\n|---|---|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a checklist says of one behaviour."""

    shown: bool
    title: str


def render(report: Report) -> str:
    """Return the page for a run. Nothing in it changes from run to run but the metrics."""
    parts = [ABOUT, f"**{summary(report)}**\n"]
    for group, behaviours in groupby(report.behaviours, key=lambda b: b.id.partition(".")[0]):
        rows = [_row(b, report.rbee_version) for b in behaviours]
        parts.append(f"## {group} {GROUPS[group]}\n\n{HEADINGS}\n" + "\n".join(rows) + "\n")
    if report.metrics:
        parts.append(_metrics(report.metrics, report.backend))
    return "\n".join(parts)


def summary(report: Report) -> str:
    """Return one sentence about the run."""
    text = f"{len(report.shown)} of {len(BEHAVIOURS)} behaviours are shown"
    counts = [f"{report.count('passed')} of {len(report.scenarios)} scenarios passed"]
    counts += [f"{report.count(o)} {o}" for o in ("failed", "skipped", "not run") if report.count(o)]
    return f"{text}; {', '.join(counts)}."


def _row(behaviour: Behaviour, version: str) -> str:
    backends = ", ".join(sorted({s.backend for s in behaviour.scenarios} - {""}))
    models = ", ".join(sorted({s.model for s in behaviour.scenarios} - {""}))
    files = Counter(s.file for s in behaviour.scenarios)
    links = [f"[{f}]({f})" + (f", {n} examples" if n > 1 else "") for f, n in sorted(files.items())]
    scenario = ", ".join(links) if behaviour.shown else _cell(", ".join([*links, behaviour.reason]))
    cells = [
        SHOWN if behaviour.shown else NOT_SHOWN,
        behaviour.id,
        behaviour.title,
        scenario,
        backends,
        models,
        version,
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(text: str) -> str:
    """Return text that cannot end a cell."""
    return " ".join(text.split()).replace("|", "\\|")[:300]


def _metrics(metrics: Metrics, backend: str) -> str:
    if metrics.error:
        return f"## Metrics\n\nNot measured: {_cell(metrics.error)}\n"
    return (
        f"## Metrics\n\nOne `rbee infer` of {metrics.tokens} tokens on {backend} with {metrics.model}, at the end of "
        "the run.\n\n| Tokens/s | Time to first token | Load time | Whole command |\n|---|---|---|---|\n"
        f"| {metrics.tokens_per_s:.1f} | {metrics.first_token_ms} ms | {metrics.load_ms} ms | {metrics.total_ms} ms |\n"
    )


def read(text: str) -> dict[str, Claim]:
    """Return what a page claims, by id."""
    return {name: Claim(mark == SHOWN, title) for mark, name, title in ROW.findall(text)}


def problems(claims: Mapping[str, Claim], report: Report) -> Iterator[str]:
    """Yield a sentence for everything that a page claims and this run did not show, and for every missing id."""
    missing = [name for name in BEHAVIOURS if name not in claims]
    if missing:
        yield f"it has no line for {', '.join(missing)}"
    for behaviour in report.behaviours:
        claim = claims.get(behaviour.id)
        if claim and claim.title != behaviour.title:
            yield f"it words {behaviour.id} differently: {claim.title}"
        if claim and claim.shown and not behaviour.shown:
            yield f"it claims {behaviour.id}, which this run did not show: {behaviour.reason}"


def modest(claims: Mapping[str, Claim], report: Report) -> list[str]:
    """Return the ids that this run shows and the page does not claim."""
    return [name for name in report.shown if name in claims and not claims[name].shown]
