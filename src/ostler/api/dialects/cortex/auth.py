"""Signing in and out by name and password, and the first administrator."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import Request, Response
from pydantic import Field, SecretStr

from ostler.access.sessions import CORTEX_COOKIE
from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.words import role_word
from ostler.api.door import admitted, needs, open_to_all
from ostler.api.services import Rooms, Who
from ostler.api.session_cookies import forget_cookie, set_cookie
from ostler.core.errors import Unauthenticated
from ostler.core.principals import Role

routes = router("auth")

LIFETIME = timedelta(hours=8)


class SignIn(CortexBody):
    """Name and password."""

    username: str = Field(max_length=255)
    password: SecretStr


class FirstOwner(CortexBody):
    """The first administrator, and the organisation that they are of."""

    username: str = Field(max_length=255)
    password: SecretStr
    org_name: str = Field("", max_length=255)


@routes.post("/auth/login", **open_to_all())
async def sign_in(rooms: Rooms, request: Request, response: Response, body: SignIn) -> dict[str, Any]:
    """Sign in; the answer sets the session's cookie."""
    address = request.client.host if request.client else "unknown"
    value, session = await rooms.access.sign_in(
        body.username, body.password.get_secret_value(), address, lifetime=LIFETIME
    )
    set_cookie(request, response, CORTEX_COOKIE, value, LIFETIME)
    user = session.user
    return {"status": "ok", "user": {"username": user.name, "role": role_word(user.role)}}


@routes.post("/auth/logout", **open_to_all())
async def sign_out(response: Response) -> dict[str, str]:
    """Forget the session in this browser."""
    forget_cookie(response, CORTEX_COOKIE)
    return {"status": "ok"}


@routes.get("/auth/me", **needs(Role.USER))
async def show_me(who: Who) -> dict[str, Any]:
    """Who you are to this server."""
    return {"username": who.name, "role": role_word(who.role)}


@routes.post("/admin/bootstrap-owner", **open_to_all())
async def bootstrap_owner(rooms: Rooms, request: Request, body: FirstOwner) -> dict[str, Any]:
    """Make the first administrator; nothing happens where there is one.

    Who administers by a key, or is the local person, may make the first person who does; everybody may
    where nobody administers yet.
    """
    try:
        who = admitted(request, rooms.access, trust_origin=True)
        beside_keys = who.role is Role.ADMIN
    except Unauthenticated:
        beside_keys = False
    owner = await rooms.access.users.create_owner(
        body.username, body.password.get_secret_value(), body.org_name.strip(), beside_keys=beside_keys
    )
    return {"status": "skipped"} if owner is None else {"status": "ok", "owner_id": owner.id}
