"""Values of Cortex's fields as ours, and back.

A translation gives None for what our record cannot say, such as a switch that is off by being absent;
`records.py` keeps that as it was sent.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.api.dialects.base import Refused
from ostler.library.errors import UnsafePath
from ostler.library.paths import safe_join

INSIDE = "/models/"
"""Where Cortex's engines see the models folder; its clients write paths of it."""


@dataclass(frozen=True, slots=True)
class Translation:
    """Two functions of a value and the models folder: to our record, and back."""

    to_ours: Callable[[Any, Path], Any]
    to_theirs: Callable[[Any, Path], Any]


def inside(text: str, models_dir: Path, field: str = "path") -> str:
    """The absolute path that a field means: relative to the models folder, and never out of it.

    Looks at links on the disk. Raises Refused.
    """
    relative = text
    for root in (f"{models_dir}/", INSIDE):
        relative = relative.removeprefix(root)
    try:
        return str(safe_join(models_dir, relative.rstrip("/")))
    except UnsafePath as error:
        raise Refused(
            "path_not_allowed",
            f"{field}: {error.message}",
            hint=f"Give a path inside the models folder, {models_dir}.",
        ) from error


def shown(path: Any, models_dir: Path) -> Any:
    """A path as Cortex has it: relative to the models folder where it is inside."""
    return str(path).removeprefix(f"{models_dir}/") if isinstance(path, str) else path


def _split_numbers(text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in str(text).replace("[", "").replace("]", "").split(",")]
    except ValueError as error:
        raise Refused("not_numbers", f"{text[:80]!r} is no list of numbers with commas") from error


def _join(numbers: Any, _: Path) -> Any:
    if not isinstance(numbers, list | tuple):
        return None
    return ",".join(str(int(n) if float(n).is_integer() else n) for n in numbers)


def _seconds(value: Any, _: Path) -> Any:
    return int(value) if float(value).is_integer() else value


def _on_off(value: Any, _: Path) -> Any:
    return {"on": True, "off": False}.get(value)


SAME = Translation(lambda value, _: value, lambda value, _: value)
SECONDS = Translation(lambda value, _: float(value) if value > 0 else None, _seconds)
INVERTED = Translation(lambda value, _: not value, lambda value, _: not value)
ON_OFF = Translation(lambda value, _: "on" if value else "off", _on_off)
ONLY_DEBUG = Translation(lambda value, _: "DEBUG" if value else None, lambda value, _: value == "DEBUG")
PATH = Translation(inside, shown)
CSV_NUMBERS = Translation(lambda text, _: _split_numbers(text, float), _join)
WHOLE_CSV = Translation(lambda text, _: _split_numbers(text, int), _join)
CSV_WORDS = Translation(
    lambda text, _: shlex.join(part.strip() for part in text.split(",")),
    lambda command, _: ",".join(shlex.split(command)),
)
