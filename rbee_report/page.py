"""The report as one page that needs nothing else: no script, no font, no picture from elsewhere."""

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from rbee_report.behaviours import BEHAVIOURS, GROUPS
from rbee_report.report import OUTCOMES, Behaviour, Metrics, Report, Scenario

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #fff; --ink: #22201c; --faint: #6f6a61; --line: #e4e0d7;
  --passed: #2e7d4f; --failed: #c0392b; --skipped: #b07d12; --not-run: #9a958b; --bee: #f2b418; }
@media (prefers-color-scheme: dark) { :root { --page: #171613; --card: #201f1b; --ink: #ece8df; --faint: #a19b8f;
  --line: #37342d; --passed: #58b57e; --failed: #ec7565; --skipped: #e0ac45; --not-run: #807b71; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.25; } h1 b { color: var(--passed); }
h1.bad b { color: var(--failed); }
h2 { margin: 2.6rem 0 .7rem; font-size: 1.15rem; } h2 small { color: var(--faint); font-weight: 400; }
.facts { color: var(--faint); margin: .4rem 0 1.3rem; }
.bar { display: flex; gap: 2px; height: .8rem; border-radius: .4rem; overflow: hidden; background: var(--line); }
.bar i { min-width: 3px; } .legend { display: flex; flex-wrap: wrap; gap: .2rem 1.3rem; margin: .6rem 0 0; padding: 0; }
.legend li { list-style: none; } .dot { display: inline-block; width: .65rem; height: .65rem; border-radius: 50%; }
.passed { --mark: var(--passed); } .failed { --mark: var(--failed); } .skipped { --mark: var(--skipped); }
.not-run { --mark: var(--not-run); } .bar i, .dot { background: var(--mark); } .word { color: var(--mark); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .8rem; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; } .tile span { color: var(--faint); }
.ids { display: grid; grid-template-columns: repeat(auto-fill, minmax(17.5rem, 1fr)); gap: .8rem; }
.ids h3 { margin: 0 0 .3rem; font-size: .95rem; } .ids ul { margin: 0; padding: 0; list-style: none; font-size: .9rem; }
.ids li { display: grid; grid-template-columns: 1.2rem 3rem 1fr; } .ids small { display: block; color: var(--failed); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .45rem .8rem; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
tr:first-child > * { border-top: 0; } th { color: var(--faint); font-weight: 500; white-space: nowrap; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { white-space: nowrap; } .id { color: var(--faint); white-space: nowrap; }
.example { display: block; color: var(--faint); } .reason { display: block; color: var(--mark); }
details { margin-top: .3rem; } summary { cursor: pointer; color: var(--mark); }
pre { margin: .5rem 0 0; padding: .8rem; max-height: 30rem; overflow: auto; background: var(--page);
  border: 1px solid var(--line); border-radius: .4rem; font: 12.5px/1.45 ui-monospace, monospace; }
footer { margin-top: 3rem; color: var(--faint); font-size: .9rem; }
"""
HEADINGS = "<tr><th>Outcome<th>Scenario<th>Id<th>Backend<th>Model<th>Time</tr>"
NOBODY = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"


def page(report: Report) -> str:
    """Return the whole page."""
    bad = report.count("failed") > 0
    verdict = f"<b>{len(report.shown)} of {len(BEHAVIOURS)}</b> behaviours are shown"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{NOBODY}',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>rbee {escape(report.rbee_version)}: {len(report.shown)} of {len(BEHAVIOURS)}</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f'<h1{" class=bad" if bad else ""}>{verdict}</h1><p class="facts">{_facts(report)}</p>',
        *_bar(report),
        *_tiles(report.metrics),
        *_behaviours(report.behaviours),
        *_features(report.scenarios),
        f"<footer>Python {escape(report.python)} on {escape(report.platform)}. Started {escape(report.started_at)}.",
        "</footer></main></body></html>\n",
    ]
    return "\n".join(parts)


def _facts(report: Report) -> str:
    facts = (f"rbee {report.rbee_version}", report.backend, report.model, f"{report.duration_s:.0f} s")
    return " · ".join(map(escape, facts))


def _class(word: str) -> str:
    return word.replace(" ", "-")


def _bar(report: Report) -> Iterator[str]:
    counts = [(outcome, report.count(outcome)) for outcome in OUTCOMES if report.count(outcome)]
    yield '<div class="bar">'
    yield from (f'<i class="{_class(o)}" style="flex: {n}" title="{n} {o}"></i>' for o, n in counts)
    yield '</div><ul class="legend">'
    yield from (f'<li class="{_class(o)}"><span class="dot"></span> {n} {o}</li>' for o, n in counts)
    yield f"<li>{len(report.scenarios)} scenarios</li></ul>"


def _tiles(metrics: Metrics | None) -> Iterator[str]:
    if metrics is None:
        return
    yield f"<h2>One inference <small>{escape(metrics.model)}</small></h2>"
    if metrics.error:
        yield f'<p class="failed"><span class="word">{escape(metrics.error)}</span></p>'
        return
    tiles = {
        "tokens a second": f"{metrics.tokens_per_s:.1f}",
        "to the first token": f"{metrics.first_token_ms} ms",
        "to load the model": f"{metrics.load_ms} ms",
        f"for {metrics.tokens} tokens, from the command to its end": f"{metrics.total_ms / 1000:.1f} s",
    }
    yield '<div class="tiles">'
    yield from (f'<div class="tile"><b>{value}</b><span>{what}</span></div>' for what, value in tiles.items())
    yield "</div>"


def _behaviours(behaviours: Iterable[Behaviour]) -> Iterator[str]:
    yield '<h2>Behaviours</h2><div class="ids">'
    for group, own in groupby(behaviours, key=lambda b: b.id.partition(".")[0]):
        yield f'<div class="tile"><h3>{group} {escape(GROUPS[group])}</h3><ul>'
        yield from map(_behaviour, own)
        yield "</ul></div>"
    yield "</div>"


def _behaviour(behaviour: Behaviour) -> str:
    mark, word = ("✓", "passed") if behaviour.shown else ("✗", "failed")
    reason = f"<small>{escape(behaviour.reason)}</small>" if behaviour.reason else ""
    title = escape(behaviour.title.replace("`", ""))
    name = f'<b class="word">{mark}</b><span class="id">{behaviour.id}</span>'
    return f'<li class="{word}">{name}<span>{title}{reason}</span>'


def _features(scenarios: Iterable[Scenario]) -> Iterator[str]:
    for (file, feature), found in groupby(scenarios, key=lambda s: (s.file, s.feature)):
        own = list(found)
        passed = sum(s.outcome == "passed" for s in own)
        yield f"<h2>{escape(feature)} <small>{passed} of {len(own)} · {escape(file)}</small></h2>"
        yield f'<div class="scroll"><table>{HEADINGS}'
        yield from map(_row, own)
        yield "</table></div>"


def _row(scenario: Scenario) -> str:
    example = f'<span class="example">{escape(scenario.example)}</span>' if scenario.example else ""
    cells = (
        f'<span class="word">{scenario.outcome}</span>',
        f"{escape(scenario.title)}{example}{_trouble(scenario)}",
        f'<span class="id">{escape(" ".join(scenario.ids))}</span>',
        escape(scenario.backend),
        escape(scenario.model),
    )
    time = f"{scenario.duration_s:.2f} s" if scenario.outcome != "not run" else ""
    return f'<tr class="{_class(scenario.outcome)}"><td>{"<td>".join(cells)}<td class="number">{time}</tr>'


def _trouble(scenario: Scenario) -> str:
    if not scenario.reason:
        return ""
    at = f"{scenario.step}: " if scenario.step else ""
    reason = escape(at + scenario.reason)
    if not scenario.details:
        return f'<span class="reason">{reason}</span>'
    return f"<details><summary>{reason}</summary><pre>{escape(scenario.details)}</pre></details>"
