# SPDX-License-Identifier: Apache-2.0
"""Tables for people and JSON for programs: one look for all verbs.

A verb makes rows (dicts with stable keys); `-o table|wide` shows chosen columns of them, `-o json|jsonl` all keys.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TextIO

import click

from gpuvirt.errors import UsageError

FORMATS = ("table", "wide", "json", "jsonl")
_DEFAULT_WIDTH = 80  # columns when the output is no terminal
_GAP = "  "
GIB_FROM = 10 << 30  # bytes: from here on memory is shown in GiB
_COLOURS = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    text: Callable[[Row], str]
    right: bool = False
    shrink: int = 0  # smallest width when the table is too wide; 0: never cut
    colour: Callable[[Row], str | None] = lambda row: None


def format_option(formats: Sequence[str] = FORMATS) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option -o, the same for all verbs, and its short form -w; the verb takes both as `output`."""

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(verb)
        def with_output(*arguments: Any, output: str, wide: bool = False, **others: Any) -> Any:
            if wide and output not in ("table", "wide"):
                raise UsageError(f"-w is for tables, and the output is {output}", "leave one of them out")
            return verb(*arguments, output="wide" if wide else output, **others)

        if "wide" in formats:
            flag = click.option("-w", "--wide", is_flag=True, help="All columns, however wide: as -o wide.")
            with_output = flag(with_output)
        return click.option(
            "-o", "output", type=click.Choice(list(formats)), default="table", show_default=True, help="How to print."
        )(with_output)

    return decorate


def terminal_width(stream: TextIO) -> int:
    """Columns of the terminal, 80 when there is none."""
    if stream.isatty() or "COLUMNS" in os.environ:
        return max(40, shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns)
    return _DEFAULT_WIDTH


def wants_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Colour only on a terminal, and never against NO_COLOR (no-color.org: any non-empty value)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(text: str, colour: str | None, enabled: bool) -> str:
    """`text` in that colour ("red", "bold", ...)."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if enabled and colour is not None else text


def plain(text: object) -> str:
    """Text of somebody else made safe for a terminal: control characters are written as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text))


def cut(text: str, width: int) -> str:
    """At most `width` characters; a cut is marked."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def table(columns: Sequence[Column], rows: Sequence[Row], width: int | None, colour: bool = False) -> list[str]:
    """Lines of a table with a heading, at most `width` characters wide as far as columns may shrink (None: any)."""
    cells = [[plain(column.text(row)) for column in columns] for row in rows]
    widths = [max([len(c.title), *(len(line[i]) for line in cells)]) for i, c in enumerate(columns)]
    if width is not None:
        _shrink(columns, widths, width)
    lines = [paint(_line([c.title for c in columns], columns, widths), "bold", colour)]
    for row, texts in zip(rows, cells, strict=True):
        colours = [c.colour(row) for c in columns] if colour else None
        lines.append(_line(texts, columns, widths, colours))
    return lines


def _shrink(columns: Sequence[Column], widths: list[int], width: int) -> None:
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while excess > 0:
        able = [i for i, c in enumerate(columns) if c.shrink and widths[i] > c.shrink]
        if not able:
            return
        widest = max(able, key=lambda i: widths[i])
        widths[widest] -= 1
        excess -= 1


def _line(
    texts: Sequence[str], columns: Sequence[Column], widths: Sequence[int], colours: Sequence[str | None] | None = None
) -> str:
    parts = []
    for i, (text, column) in enumerate(zip(texts, columns, strict=True)):
        text = cut(text, widths[i])
        text = text.rjust(widths[i]) if column.right else text.ljust(widths[i])
        parts.append(paint(text, colours[i], colours is not None) if colours is not None else text)
    return _GAP.join(parts).rstrip()


def show(rows: Sequence[Row], output: str, columns: Sequence[Column], wide: Sequence[Column], empty: str) -> None:
    """Prints rows in the asked format; `empty` is said to people when there are none."""
    if output == "json":
        print_json([dict(row) for row in rows])
    elif output == "jsonl":
        for row in rows:
            print(json.dumps(dict(row)))
    elif not rows:
        print(empty)
    else:
        colour = wants_colour(sys.stdout, os.environ)
        chosen, limit = (wide, None) if output == "wide" else (columns, terminal_width(sys.stdout))
        print("\n".join(table(chosen, rows, limit, colour)))


def print_json(value: object) -> None:
    """One JSON document, readable."""
    print(json.dumps(value, indent=2))


def seconds(value: float | None) -> str:
    """ "0.25s", "12.3s", "4m05s", "3h10m"; "-" for None."""
    if value is None:
        return "-"
    if value < 10:
        return f"{value:.2f}s"
    if value < 60:
        return f"{value:.1f}s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def mebibytes(value: float | None) -> str:
    """Bytes as whole MiB, rounded up so that "0" means none; "-" for None."""
    return "-" if value is None else str(-(-int(value) // (1 << 20)))


def percent(value: float | None) -> str:
    """0.5 -> "50%"; "-" for None."""
    return "-" if value is None else f"{100 * value:.0f}%"


def size(value: float | None) -> str:
    """Bytes for people: "0", "12M" (rounded up), from 10 GiB on "79.5G"; "-" for None."""
    if value is None:
        return "-"
    if value >= GIB_FROM:
        return f"{value / (1 << 30):.1f}G"
    return f"{mebibytes(value)}M" if value > 0 else "0"


def brief(value: float | None) -> str:
    """A short time in seconds: "0", "0.4ms", "131ms", then as `seconds`; "-" for None."""
    if value is None or value >= 1:
        return seconds(value)
    if value <= 0:
        return "0"
    return f"{1000 * value:.0f}ms" if value >= 0.01 else f"{1000 * value:.1f}ms"


def gigabytes(value: float | None) -> str:
    """Bytes a second as GB/s (1e9): "0.95", "51.2"; "-" for None."""
    if value is None:
        return "-"
    return f"{value / 1e9:.1f}" if value >= 1e10 else f"{value / 1e9:.2f}"
