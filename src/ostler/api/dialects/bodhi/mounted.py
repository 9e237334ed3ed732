"""BodhiApp's API as one dialect: its paths, its routers."""

from __future__ import annotations

from fastapi import APIRouter

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.bodhi import about, aliases, modelfiles, pulls, settings, tokens
from ostler.api.dialects.bodhi.errors import envelope

ROUTERS: tuple[APIRouter, ...] = (
    about.routes,
    aliases.routes,
    pulls.routes,
    modelfiles.routes,
    tokens.routes,
    settings.routes,
)
"""Every router of the dialect."""

PREFIX = "/bodhi/v1"


def owns(path: str) -> bool:
    """True for BodhiApp's paths."""
    return path in ("/ping", PREFIX) or path.startswith(f"{PREFIX}/")


BODHI = Dialect(owns, envelope, ROUTERS, {})
