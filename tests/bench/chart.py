# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bar charts in SVG: a panel for each row of comparison.summary()."""

import html

import comparison

WIDTH = 440  # of a panel
LABEL_WIDTH = 170
VALUE_WIDTH = 70
BAR_HEIGHT = 14
LINE_HEIGHT = 20
TITLE_HEIGHT = 34
GAP = 16
N_COLUMNS = 2

COLOURS = {
    comparison.HOLDFAST: "#c2410c",
    comparison.UNPROTECTED: "#fdba74",
    comparison.DIRECT: "#d4d4d8",
}
OTHERS_COLOUR = "#71717a"


def number(value):
    """Three digits that count."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _text(x, y, text, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}"{more}>{html.escape(text)}</text>'


def _panel(row):
    """Its elements and its height, at 0,0."""
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    largest = max(values["median"] for values in row["subjects"].values()) or 1
    better = "more" if row["more_is_better"] else "less"
    yield _text(0, 16, f"{row['figure']} ({better} is better)", ' font-weight="bold"')
    for i, (name, values) in enumerate(row["subjects"].items()):
        y = TITLE_HEIGHT + i * LINE_HEIGHT - 8
        width = room * max(values["median"], 0) / largest
        colour = COLOURS.get(name, OTHERS_COLOUR)
        base = y + BAR_HEIGHT - 3
        yield _text(LABEL_WIDTH - 6, base, comparison.TITLES[name], ' text-anchor="end"')
        yield (
            f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" '
            f'height="{BAR_HEIGHT}" fill="{colour}"/>'
        )
        yield _text(LABEL_WIDTH + width + 5, base, number(values["median"]))


def draw(rows):
    """The text of an SVG file."""
    rows = [row for row in rows if row["subjects"]]
    height = TITLE_HEIGHT + LINE_HEIGHT * max(len(row["subjects"]) for row in rows) + GAP
    n_lines = -(-len(rows) // N_COLUMNS)
    size = (N_COLUMNS * (WIDTH + GAP) + GAP, n_lines * height + GAP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for i, row in enumerate(rows):
        x = GAP + i % N_COLUMNS * (WIDTH + GAP)
        y = GAP + i // N_COLUMNS * height
        lines += [f'<g transform="translate({x},{y})">', *_panel(row), "</g>"]
    return "\n".join([*lines, "</svg>", ""])
