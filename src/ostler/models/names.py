"""Which names a model may have."""

from __future__ import annotations

import re

from ostler.core.errors import InvalidField

MAX_NAME = 200
RESERVED = frozenset({"status", "running"})
"""Path segments of `/v1/models/...` that belong to another API."""

ACTIONS = frozenset(
    {"start", "stop", "restart", "copy", "apply", "dry-run", "logs", "instance", "aliases", "constraints"}
)
"""Last path segments that mean an action on a model in our own API."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:/@+ -]*[A-Za-z0-9._:/@+-])?")


def check_name(name: object, field: str = "name") -> str:
    """Give the name back if a model may have it.

    Letters, digits, `. _ - : / @ +` and blanks between them, beginning with a letter or digit, at most
    MAX_NAME long.
    Raises InvalidField.
    """
    if not isinstance(name, str) or not name:
        raise InvalidField(field, "a model needs a name", hint="For example: qwen3-8b or org/repo:Q4_K_M")
    if len(name) > MAX_NAME:
        raise InvalidField(field, f"a model's name has at most {MAX_NAME} characters, this one {len(name)}")
    if not _NAME.fullmatch(name):
        raise InvalidField(
            field,
            f"{name!r} cannot be a model's name",
            hint="Use letters, digits, . _ - : / @ + and blanks between them; begin with a letter or digit.",
        )
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise InvalidField(field, f"{name!r} has an empty, '.' or '..' part between its slashes")
    if name in RESERVED or (len(segments) > 1 and segments[-1] in ACTIONS):
        raise InvalidField(
            field, f"the name {name!r} is reserved", hint=f"Choose another, for example {name}-model."
        )
    return name


def is_name(text: str) -> bool:
    """True where a model may have this name."""
    try:
        check_name(text)
    except InvalidField:
        return False
    return True


def name_like(text: str) -> str:
    """The text itself where a model may be called so, else the nearest name that it may have."""
    return text if is_name(text) else name_from(text)


def name_from(text: str) -> str:
    """The nearest allowed name to a file's or repo's name, without blanks."""
    name = re.sub(r"[^A-Za-z0-9._:/@+-]+", "-", text).strip("-./")
    name = re.sub(r"^[^A-Za-z0-9]+", "", name)[:MAX_NAME]
    return name or "model"
