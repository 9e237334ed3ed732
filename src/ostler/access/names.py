"""Checks of what people write about keys and persons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from fnmatch import fnmatchcase
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.near import near_names
from ostler.core.principals import SCOPES, Limits, Principal

MAX_NAME = 100
MAX_PATTERNS = 1_000
MAX_LIMIT = 1_000_000_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+ -]*")
_LIMITS = tuple(field.name for field in fields(Limits))


def check_name(name: str, field: str) -> str:
    """Give the name of a key or person back if it may have it. Raises InvalidField."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or name != name.strip() or name.isdecimal():
        raise InvalidField(
            field,
            f"{name[:MAX_NAME]!r} cannot be a name here",
            hint=f"Letters, digits, spaces and . _ - @ +, at most {MAX_NAME} and no plain number.",
        )
    return name


def check_patterns(models: Iterable[str]) -> tuple[str, ...]:
    """Give the patterns of a model allow-list back. Raises InvalidField."""
    patterns = tuple(models)
    if len(patterns) > MAX_PATTERNS:
        raise InvalidField("models", f"at most {MAX_PATTERNS} patterns, these are {len(patterns)}")
    for pattern in patterns:
        if not pattern or len(pattern) > 250 or not pattern.isprintable():
            raise InvalidField(
                "models",
                f"{pattern[:50]!r} cannot be a pattern of model names",
                hint="Such as qwen* or org/*",
            )
    return patterns


def read_limits(data: Mapping[str, Any]) -> Limits:
    """Read the limits of a key by their names; None means unlimited. Raises InvalidField."""
    for name, value in data.items():
        if name not in _LIMITS:
            near = near_names(name, _LIMITS)
            hint = f"Did you mean limits.{near[0]}?" if near else f"Known: {', '.join(_LIMITS)}."
            raise InvalidField(f"limits.{name}", f"unknown limit {name!r}", hint=hint)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and 1 <= value <= MAX_LIMIT):
            raise InvalidField(f"limits.{name}", f"{name} must be a whole number from 1 to {MAX_LIMIT}")
    return Limits(**{name: value for name, value in data.items() if value is not None})


def check_scopes(scopes: Iterable[str] | None) -> tuple[str, ...] | None:
    """Give the scopes of a key back, None for all ("*" means that too). Raises InvalidField."""
    if scopes is None:
        return None
    found = tuple(dict.fromkeys(scopes))
    if "*" in found:
        return None
    for scope in found:
        if scope not in SCOPES:
            near = near_names(scope, SCOPES)
            hint = f"Did you mean {near[0]}?" if near else f"One of: {', '.join(SCOPES)}."
            raise InvalidField("scopes", f"unknown scope {scope[:50]!r}", hint=hint)
    return found


def may_use(principal: Principal, *names: str) -> bool:
    """True when the principal's allow-list lets it use a model that has any of these names."""
    if principal.models is None:
        return True
    return any(fnmatchcase(name, pattern) for pattern in principal.models for name in names)
