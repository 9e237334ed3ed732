"""Cortex's API as one dialect: its paths, its routers, its headers."""

from __future__ import annotations

from fastapi import APIRouter

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.cortex import (
    auth,
    chats,
    folders,
    images,
    keys,
    lifecycle,
    model_metrics,
    models,
    people,
    playground,
    recipes,
    system,
    upstreams,
    usage,
)
from ostler.api.dialects.cortex.errors import envelope

ROUTERS: tuple[APIRouter, ...] = (
    auth.routes,
    folders.routes,
    images.routes,
    keys.routes,
    people.routes,
    recipes.routes,
    playground.routes,
    chats.routes,
    model_metrics.routes,
    upstreams.routes,
    usage.routes,
    system.routes,
    models.routes,
    lifecycle.routes,
)
"""Every router of the dialect. One with fixed paths stands before one whose paths have an id there."""

_PREFIXES = ("/admin", "/auth", "/v1/chat/sessions")
_V1_MODELS = ("/v1/models/status", "/v1/models/running")

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"strict-origin-when-cross-origin",
    b"x-xss-protection": b"0",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


def owns(path: str) -> bool:
    """True for Cortex's paths."""
    if path in _V1_MODELS or (path.startswith("/v1/models/") and path.endswith("/constraints")):
        return True
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in _PREFIXES)


CORTEX = Dialect(owns, envelope, ROUTERS, HEADERS)
