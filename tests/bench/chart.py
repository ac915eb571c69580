# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bar charts in SVG, in panels.

A panel is {"title": text, "bars": [(label, value, colour)]}; colour is a COLOUR_ or SVG's.
"""

import html

WIDTH = 440  # of a panel
LABEL_WIDTH = 170
VALUE_WIDTH = 70
BAR_HEIGHT = 14
LINE_HEIGHT = 20
TITLE_HEIGHT = 34
GAP = 16
N_COLUMNS = 2

COLOUR_SUBJECT = "#c2410c"
COLOUR_VARIANT = "#fdba74"
COLOUR_FLOOR = "#d4d4d8"
COLOUR_OTHER = "#71717a"


def number(value):
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _text(x, y, text, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{html.escape(text)}</text>'


def _panel(panel):
    """Its elements, at 0,0."""
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    largest = max(value for _, value, _ in panel["bars"]) or 1
    yield _text(0, 16, panel["title"], ' font-weight="bold"')
    for i, (label, value, colour) in enumerate(panel["bars"]):
        y = TITLE_HEIGHT + i * LINE_HEIGHT - 8
        width = room * max(value, 0) / largest
        base = y + BAR_HEIGHT - 3
        yield _text(LABEL_WIDTH - 6, base, label, ' text-anchor="end"')
        yield (
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" '
            f'height="{BAR_HEIGHT}" fill="{colour}"/>'
        )
        yield _text(LABEL_WIDTH + width + 5, base, number(value))


def draw(panels):
    """The text of an SVG file."""
    panels = [panel for panel in panels if panel["bars"]]
    height = TITLE_HEIGHT + LINE_HEIGHT * max(len(panel["bars"]) for panel in panels) + GAP
    n_lines = -(-len(panels) // N_COLUMNS)
    size = (N_COLUMNS * (WIDTH + GAP) + GAP, n_lines * height + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif" font-size="11">',
        "<!-- SPDX-License-Identifier: LGPL-2.1-or-later -->",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, panel in enumerate(panels):
        x = GAP + i % N_COLUMNS * (WIDTH + GAP)
        y = GAP + i // N_COLUMNS * height
        lines += [f'<g transform="translate({x},{y})">', *_panel(panel), "</g>"]
    return "\n".join([*lines, "</svg>", ""])
