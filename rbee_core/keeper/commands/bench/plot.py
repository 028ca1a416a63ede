"""Draws what was measured: a bar for each number of streams and place, as SVG. Pure."""

from collections.abc import Sequence
from html import escape

from rbee_core.keeper.commands.bench.figures import Speed

COLOURS = ("#2a6f97", "#c8553d", "#588157", "#8367c7", "#b08900")
WIDTH, BAR, GAP, TOP, LABELS, FIGURES = 640, 22, 8, 40, 220, 90


def draw(title: str, speeds: Sequence[Speed]) -> str:
    """Return the picture: total tokens per second, longer is better. Places keep their colour."""
    most = max((speed.tokens_per_s for speed in speeds), default=0.0) or 1.0
    places = list(dict.fromkeys(speed.where for speed in speeds))
    bars = [
        _bar(number, speed, most, COLOURS[places.index(speed.where) % len(COLOURS)])
        for number, speed in enumerate(speeds)
    ]
    height = TOP + len(speeds) * (BAR + GAP) + GAP
    heading = escape(f"{title}: tokens per second, all streams together")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img" aria-label="{heading}" '
        'font-family="Verdana,DejaVu Sans,sans-serif" font-size="12">'
        f'<title>{heading}</title><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{GAP}" y="24" font-weight="bold">{heading}</text>{"".join(bars)}</svg>\n'
    )


def _bar(number: int, speed: Speed, most: float, colour: str) -> str:
    y = TOP + number * (BAR + GAP)
    length = (WIDTH - LABELS - FIGURES) * speed.tokens_per_s / most
    streams = "1 stream" if speed.streams == 1 else f"{speed.streams} streams"
    return (
        f'<text x="{LABELS - GAP}" y="{y + 15}" text-anchor="end">{escape(f"{speed.where}, {streams}")}</text>'
        f'<rect x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
        f'<text x="{LABELS + length + GAP:.1f}" y="{y + 15}">{speed.tokens_per_s:g}</text>'
    )
