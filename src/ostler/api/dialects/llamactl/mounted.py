"""llamactl's API as one dialect: its paths, its routers, its headers."""

from __future__ import annotations

from fastapi import APIRouter

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.llamactl import backends, instances, keys, models, routers, system
from ostler.api.dialects.llamactl.errors import shape

ROUTERS: tuple[APIRouter, ...] = (
    models.routes,
    backends.routes,
    keys.routes,
    system.routes,
    routers.routes,
    instances.routes,
)
"""Every router of the dialect. One with fixed paths stands before one whose paths have a name there."""

_PREFIXES = ("/api/v1", "/llama-cpp")

HEADERS = {b"vary": b"Origin"}


def owns(path: str) -> bool:
    """True for llamactl's paths."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in _PREFIXES)


LLAMACTL = Dialect(owns, shape, ROUTERS, HEADERS)
