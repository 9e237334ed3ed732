"""Ollama's API as one dialect: its paths, its routers, its errors."""

from __future__ import annotations

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.ollama import creating, keeping, listing, pulling
from ostler.api.dialects.ollama.errors import envelope

BLOBS = "/api/blobs/"


def owns(path: str) -> bool:
    """True for Ollama's paths: all of /api but /api/v1."""
    return path.startswith("/api/") and path != "/api/v1" and not path.startswith("/api/v1/")


OLLAMA = Dialect(
    owns,
    envelope,
    (listing.routes, pulling.routes, keeping.routes, creating.routes),
    {},
    takes_files=lambda path: path.startswith(BLOBS),
)
