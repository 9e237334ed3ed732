"""Is it the same program with the same options as before? Looks at files, runs nothing."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ostler.core.errors import Invalid
from ostler.core.launch import LaunchSpec
from ostler.engines.options import OptionTable, OptionValue

FileState = tuple[int, ...]
"""Size, time of change in ns and inode of a file; empty where there is none."""


def file_state(path: str | Path) -> FileState:
    """Changes when the file does."""
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return (found.st_size, found.st_mtime_ns, found.st_ino)


def program_state(spec: LaunchSpec) -> list[Any]:
    """Changes when the program that a launch would run does: JSON-ready.

    A Python program (the built-in engine) changes with the wheel that carries the engine.
    """
    wheel = None
    if spec.command and spec.command[0] == sys.executable:
        try:
            wheel = version("xllamacpp")
        except PackageNotFoundError:
            wheel = None
    state = file_state(spec.command[0]) if spec.command else ()
    return [list(spec.command), list(state), spec.image, wheel]


def memory_options(table: OptionTable, spec: LaunchSpec, without: Collection[str]) -> list[Any]:
    """What a launch says that may change its memory: JSON-ready; `without` are options that cannot.

    The files that options name count with their state. A command line that the table cannot read counts
    as it stands.
    """
    try:
        parsed = table.parse_command(list(spec.args))
    except Invalid:
        return [list(spec.args), dict(spec.env)]
    options = {name: value for name, value in parsed.options.items() if name not in without}
    named = [value for name, value in options.items() if table.get(name).type == "path"]
    files = [file_state(str(path)) for value in named for path in _as_list(value)]
    return [options, files, list(parsed.extra_args), dict(spec.env)]


def _as_list(value: OptionValue) -> list[Any]:
    return value if isinstance(value, list) else [value]
