"""The cookie of a browser's session: every door sets and forgets it with the same protection."""

from __future__ import annotations

from datetime import timedelta

from fastapi import Request, Response


def set_cookie(request: Request, response: Response, name: str, value: str, lifetime: timedelta) -> None:
    """Have the browser keep it, out of reach of scripts and of other sites' requests."""
    response.set_cookie(
        name,
        value,
        max_age=int(lifetime.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def forget_cookie(response: Response, name: str) -> None:
    """Have the browser forget it."""
    response.delete_cookie(name, path="/", httponly=True, samesite="lax")
