"""Draws the badge: what was checked on the left, the verdict on the right."""

from html import escape

COLOURS = {"conforms": "#2a7f3e", "does not conform": "#b3261e"}
OTHER = "#6b6b6b"
CHARACTER_PX = 6.6
MARGIN_PX = 7


def draw(label: str, word: str) -> str:
    """Return the badge as SVG."""
    left, right = _width(label), _width(word)
    text = f"{escape(label)}: {escape(word)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{text}">'
        f"<title>{text}</title>"
        f'<rect width="{left}" height="20" fill="#333"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{COLOURS.get(word, OTHER)}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2:g}" y="14">{escape(label)}</text>'
        f'<text x="{left + right / 2:g}" y="14">{escape(word)}</text>'
        "</g></svg>\n"
    )


def _width(text: str) -> int:
    return round(len(text) * CHARACTER_PX) + 2 * MARGIN_PX
