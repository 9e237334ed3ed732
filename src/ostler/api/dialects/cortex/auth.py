"""Signing in and out by name and password."""

from __future__ import annotations

from typing import Any

from ostler.api.dialects.cortex.door import router
from ostler.api.door import needs
from ostler.api.services import Who
from ostler.core.principals import Role

routes = router("auth")


def role_word(role: Role) -> str:
    """Cortex knows two roles: who administers, and everybody else."""
    return "Admin" if role is Role.ADMIN else "User"


@routes.get("/auth/me", **needs(Role.USER))
async def show_me(who: Who) -> dict[str, Any]:
    """Who you are to this server."""
    return {"username": who.name, "role": role_word(who.role)}
