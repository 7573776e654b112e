# SPDX-License-Identifier: Apache-2.0
"""SVG of tracks, as Perfetto shows them, and of a terminal. Pure: text in, text out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from gpuvirt.cli.timeline import Track

WIDTH, LABELS, ROW, GAP = 1000, 190, 20, 4  # pixels
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"
PAPER, INK, FAINT, BAND = "#ffffff", "#1f2328", "#57606a", "#f0f2f5"
COLOURS = {
    "alone": "#7bc47f", "held": "#3f9b48", "grows": "#a3c940", "step": "#b08a2e", "drain": "#e59a2f",
    "waits": "#d5dae0", "waits for memory": "#e3877f", "evict": "#8d6fc9", "restore": "#4a90d9", "prepares": "#b9a3e3",
}  # fmt: skip
JOBS = ("#3f78c3", "#3f9b48", "#c2703d", "#8d6fc9", "#b0487a", "#6b7f2a")  # on the line of a GPU
MOVED = "#9fb4c9"
TERMINAL, LETTERS = "#0d1117", "#e6edf3"
ANSI = {"31": "#ff7b72", "32": "#3fb950", "33": "#d29922", "36": "#39c5cf", "1": "#ffffff", "2": "#8b949e"}
CHARACTER, LINE = 7.83, 18  # pixels of the font below, at 13 px
_PIECE = re.compile(r"\S+(?: \S+)*")
_PAINT = re.compile(r"\x1b\[(\d+)m(.*?)\x1b\[0m")


def picture_of_tracks(tracks: Sequence[Track], begin: int, end: int) -> str:
    """What lies between two moments (ns). Slices that are open go on to the end."""
    scale = (WIDTH - LABELS - 10) / (end - begin)
    colours: dict[str, str] = {}
    rows, y, group = [], 34, ""
    anchors: dict[int, list[tuple[float, float]]] = {}

    def x(at: int) -> float:
        return LABELS + (min(max(at, begin), end) - begin) * scale

    for track in tracks:
        if track.group != group:
            group = track.group
            y += GAP
            rows.append(f'<rect x="0" y="{y}" width="{WIDTH}" height="{ROW}" fill="{BAND}"/>')
            rows.append(_text(8, y + 14, group, INK, weight="bold"))
            y += ROW + 2
        rows.append(_text(16, y + 14, track.name, FAINT))
        for one in track.slices:
            stop = end if one.end is None else one.end
            if stop <= begin or one.begin >= end:
                continue
            left, wide = x(one.begin), max(0.6, x(stop) - x(one.begin))
            fill = COLOURS.get(one.name.removesuffix(" waits") if " for " not in one.name else one.name, MOVED)
            if "job" in one.arguments and track.name == "lease":
                fill = colours.setdefault(str(one.arguments["job"]), JOBS[len(colours) % len(JOBS)])
                fill = COLOURS["drain"] if one.arguments.get("lease") == "drain" else fill
            elif one.name.startswith("prepares"):
                fill = COLOURS["prepares"]
            rows.append(
                f'<rect x="{left:.1f}" y="{y + 1}" width="{wide:.1f}" height="{ROW - 3}" fill="{fill}">'
                f"<title>{escape(one.name)}: {(stop - one.begin) / 1e6:.1f} ms</title></rect>"
            )
            if wide > 7 * len(one.name) + 6:
                light = fill in (COLOURS["waits"], MOVED)
                rows.append(_text(left + 4, y + 14, one.name, INK if light else "#ffffff", size=11))
            if one.flow is not None and begin < stop < end:
                anchors.setdefault(one.flow, []).insert(0, (left + wide, y + ROW / 2))
            if one.ends is not None and one.begin > begin:
                anchors.setdefault(one.ends, []).append((left, y + ROW / 2))
        if track.points:
            rows.append(_counter(track, begin, end, x, y))
        y += ROW
    arrows = [_arrow(*pair) for pair in anchors.values() if len(pair) == 2]
    return _svg(WIDTH, y + 10, PAPER, [*_axis(begin, end, x, y), *rows, *arrows])


def _counter(track: Track, begin: int, end: int, x: Callable[[int], float], y: int) -> str:
    most = max(value for _, value in track.points) or 1
    value = next((size for at, size in reversed(track.points) if at <= begin), track.points[0][1])
    path, bottom = [f"M{x(begin):.1f} {y + ROW - 2}"], y + ROW - 2

    def level(size: int) -> float:
        return bottom - (ROW - 5) * size / most

    path.append(f"L{x(begin):.1f} {level(value):.1f}")
    for at, size in track.points:
        if begin < at < end:
            path.append(f"H{x(at):.1f}V{level(size):.1f}")
    path.append(f"H{x(end):.1f}V{bottom}Z")
    most_text = _text(x(end) - 4, y + 13, f"{most / (1 << 20):.0f} MiB", FAINT, size=10, anchor="end")
    return f'<path d="{"".join(path)}" fill="#4a90d9" fill-opacity="0.45"/>{most_text}'


def _arrow(source: tuple[float, float], target: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = source, target
    bend = max(8.0, (x2 - x1) / 2)
    return (
        f'<path d="M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}" '
        f'fill="none" stroke="{INK}" stroke-opacity="0.55"/><circle cx="{x2:.1f}" cy="{y2:.1f}" r="2" fill="{INK}"/>'
    )


def _axis(begin: int, end: int, x: Callable[[int], float], bottom: int) -> list[str]:
    step = next(ms for ms in (10, 20, 50, 100, 200, 500, 1000, 10_000) if (end - begin) / 1e6 / ms <= 10)
    lines = []
    for number in range(int((end - begin) / 1e6 / step) + 1):
        at = x(begin + number * step * 1_000_000)
        lines.append(f'<path d="M{at:.1f} 26V{bottom}" stroke="{BAND}"/>')
        lines.append(_text(at, 20, f"{number * step} ms", FAINT, size=11, anchor="middle" if number else "start"))
    return lines


def picture_of_text(title: str, lines: Sequence[str]) -> str:
    """A terminal with these lines; colours as in `gpuvirt.cli.output`."""
    wide = int(max(len(_PAINT.sub(r"\2", line)) for line in lines) * CHARACTER) + 32
    rows = [_text(16, 20, f"$ {title}", ANSI["2"], size=13)]
    for number, line in enumerate(lines):
        rows.append(_coloured(line, 16, 44 + number * LINE))
    return _svg(wide, 44 + len(lines) * LINE, TERMINAL, rows)


def _coloured(line: str, x: float, y: int) -> str:
    """Each piece is put, and stretched, to its place, whatever font there is."""
    rows, column, at = [], 0, 0
    for match in [*_PAINT.finditer(line), None]:
        plain = line[at : match.start() if match else len(line)]
        for text, fill in ((plain, LETTERS), (match[2], ANSI[match[1]]) if match else ("", "")):
            for piece in _PIECE.finditer(text):
                rows.append(
                    f'<text x="{x + (column + piece.start()) * CHARACTER:.1f}" y="{y}" font-size="13" fill="{fill}" '
                    f'textLength="{len(piece[0]) * CHARACTER:.1f}">{escape(piece[0])}</text>'
                )
            column += len(text)
        at = match.end() if match else at
    return "".join(rows)


def _text(
    x: float, y: float, text: str, fill: str, size: int = 12, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _svg(width: int, height: int, paper: str, rows: Sequence[str]) -> str:
    return "\n".join([
        "<!-- SPDX-License-Identifier: Apache-2.0; made by docs/pictures/make.py -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{FONT}">',
        f'<rect width="{width}" height="{height}" rx="6" fill="{paper}"/>',
        *rows,
        "</svg>\n",
    ])  # fmt: skip
