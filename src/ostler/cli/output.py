"""How answers look: tables, JSON, and no control code where nobody is looking."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}
_STATE_COLOURS = {
    "running": "green",
    "succeeded": "green",
    "starting": "yellow",
    "loading": "yellow",
    "stopping": "yellow",
    "queued": "yellow",
    "failed": "red",
}


def is_terminal(stream: TextIO) -> bool:
    """True when a person looks at it."""
    return stream.isatty()


def wants_colour(stream: TextIO) -> bool:
    """True on a terminal, unless NO_COLOR is set or the terminal is dumb (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """The text in a colour, where colours are wanted."""
    if not text or not wants_colour(stream or sys.stdout):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def state(name: str | None) -> str:
    """A state's name, coloured by its meaning."""
    colour = _STATE_COLOURS.get(name or "")
    return paint(name or "-", colour) if colour else name or "-"


def print_json(value: Any) -> None:
    """JSON for programs: indented, keys as the API sends them."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need to be, never cut, so that names can be copied and grepped."""
    table = [list(columns), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[i]) for row in table) for i in range(len(columns))]
    for row in table:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        print("    ".join(cells).rstrip())


def print_facts(title: str, facts: Iterable[tuple[str, str | None]], stream: TextIO | None = None) -> None:
    """One section of `show`: a title and indented name-value lines; None values are left out."""
    stream = stream or sys.stdout
    lines = [(name, value) for name, value in facts if value is not None]
    if not lines:
        return
    print(f"  {paint(title, 'bold', stream)}", file=stream)
    width = max(20, *(len(name) for name, _ in lines))
    for name, value in lines:
        print(f"    {name:<{width}}  {clean(value)}", file=stream)
    print(file=stream)


def note(text: str) -> None:
    """A remark beside the answer: on stderr, so that pipes carry the answer only."""
    print(text, file=sys.stderr)


def clean(text: str) -> str:
    """The text without control characters of others: names and logs may not steer the terminal.

    Our own colours (the SGR codes of `paint`) stay.
    """
    if text.isprintable():
        return text
    parts = text.split("\x1b[")
    kept = [_printable(parts[0])]
    for part in parts[1:]:
        digits, mark, rest = part.partition("m")
        if mark and digits.isdigit():
            kept.append(f"\x1b[{digits}m{_printable(rest)}")
        else:
            kept.append(_printable(part))
    return "".join(kept)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _width(text: str) -> int:
    visible = text
    if "\x1b" in text:
        import re

        visible = re.sub(r"\x1b\[\d+m", "", text)
    if visible.isascii():
        return len(visible)
    from rich.cells import cell_len

    return cell_len(visible)
