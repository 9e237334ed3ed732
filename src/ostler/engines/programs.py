"""What engines share: a configured command as an argv, a flag refused."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ostler.core.near import near_names
from ostler.engines.base import NoExecutable, UnknownFlag


def resolve_command(text: str, hint: str) -> tuple[str, ...]:
    """A configured command line as an argv whose first word exists. Raises NoExecutable with that hint."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise NoExecutable(f"the command {text!r} cannot be read: {error}", hint=hint) from None
    path = shutil.which(str(Path(words[0]).expanduser())) if words else None
    if path is None:
        missing = words[0] if words else text
        raise NoExecutable(f"the program {missing!r} does not exist or cannot be run", hint=hint)
    return (path, *words[1:])


def unknown_flag(flag: str, known: Iterable[str], command: Sequence[str], field: str) -> UnknownFlag:
    """The error for a flag that a program does not have, with near ones."""
    near = near_names(flag, known)
    return UnknownFlag(
        field,
        f"{shlex.join(command)} does not know the flag {flag}",
        hint=f"Did you mean {' or '.join(near)}?"
        if near
        else f"See what it knows: {shlex.join(command)} --help",
        flag=flag,
        near=near,
    )
