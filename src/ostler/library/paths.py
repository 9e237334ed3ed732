"""Joining paths that came from outside."""

from __future__ import annotations

import os
from pathlib import Path

from ostler.library.errors import UnsafePath

MAX_PATH = 4_096


def safe_join(root: Path, relative: str) -> Path:
    """The path of `relative` inside `root`; it need not exist.

    Raises UnsafePath if it is absolute or empty, holds '..', a backslash, a NUL or another control
    character, or if a link on the way leads out of `root`. `root` itself may be a link.
    """
    if not isinstance(relative, str) or not relative or len(relative) > MAX_PATH:
        raise UnsafePath("a path must be a text of 1 to 4096 characters")
    if any(ord(char) < 32 or ord(char) == 127 for char in relative):
        raise UnsafePath(f"the path {relative!r} has a control character")
    if not _is_encodable(relative):
        raise UnsafePath(f"the path {relative!r} is not valid text")
    parts = relative.split("/")
    if relative.startswith("/") or "\\" in relative or _has_drive(relative):
        raise UnsafePath(f"{relative!r} is not a relative path with '/' between its parts", path=relative)
    if ".." in parts or all(part in ("", ".") for part in parts):
        raise UnsafePath(f"{relative!r} does not name something inside the folder", path=relative)
    joined = root.joinpath(*(part for part in parts if part not in ("", ".")))
    if not is_inside(joined, root):
        raise UnsafePath(f"{relative!r} leads out of {root} through a link", path=relative)
    return joined


def is_inside(path: Path, root: Path) -> bool:
    """True if `path`, with every link followed, is `root` or under it. A circle of links is outside."""
    try:
        target = _resolved(path)
        return Path(target).is_relative_to(os.path.realpath(root))
    except (OSError, ValueError):
        return False


def _resolved(path: Path) -> str:
    """Like realpath, which by itself passes over circles in silence. Raises OSError for one."""
    try:
        return os.path.realpath(path, strict=True)
    except FileNotFoundError:
        return os.path.realpath(path)


def _has_drive(text: str) -> bool:
    return len(text) > 1 and text[1] == ":" and text[0].isalpha() and text[0].isascii()


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
