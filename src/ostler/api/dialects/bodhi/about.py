"""The server and who asks: `/ping`, `/bodhi/v1/info`, `/user`, `/setup`, `/logout`, `/auth/*`."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from pydantic import Field

from ostler.access.sessions import COOKIES
from ostler.api.dialects.bodhi.door import BodhiBody, router
from ostler.api.dialects.bodhi.errors import AlreadySetUp
from ostler.api.dialects.bodhi.tokens import SCOPE_PREFIX
from ostler.api.door import PREFIX, admitted, open_to_all
from ostler.api.native.sign_in import PATH as SIGN_IN_PATH
from ostler.api.services import Rooms
from ostler.api.session_cookies import forget_cookie
from ostler.core.errors import OstlerError, Unsupported

routes = router("server")

READY = "ready"
"""BodhiApp's `status`; a server of ours is administered from its first start on."""

HOME_PAGE = "/"
MIN_NAME = 10


class NoSuchSignIn(Unsupported):
    """This server does not sign people in that way."""

    hint = "Sign in with name and password: POST /ostler/v1/session."


class SetupIn(BodhiBody):
    """What BodhiApp's first page sends."""

    name: str = Field(min_length=MIN_NAME, max_length=200)
    description: str | None = None


@routes.get("/ping", **open_to_all())
async def ping() -> dict[str, str]:
    """The server answers."""
    return {"message": "pong"}


@routes.get("/bodhi/v1/info", **open_to_all())
async def show_info(rooms: Rooms) -> dict[str, str]:
    """Ostler's version, and that it is ready."""
    return {"version": rooms.version, "status": READY}


@routes.get("/bodhi/v1/user", **open_to_all())
async def show_user(rooms: Rooms, request: Request) -> dict[str, Any]:
    """Who you are to this server; nobody is an answer too."""
    nobody = {"logged_in": False, "email": None, "role": None, "token_type": None, "role_source": None}
    try:
        who = admitted(request, rooms.access, trust_origin=True)
    except OstlerError:
        return nobody
    is_key = who.key_id is not None
    return {
        "logged_in": True,
        "email": who.name,
        "role": who.role.label,
        "token_type": "bearer" if is_key else "session",
        "role_source": SCOPE_PREFIX.rstrip("_") if is_key else "role",
    }


@routes.post("/bodhi/v1/setup", **open_to_all())
async def set_up(body: SetupIn) -> dict[str, Any]:
    """Refused: a server of ours is set up when it starts."""
    raise AlreadySetUp(
        "this server is set up already", hint="An administrator adds people: ostler users create NAME"
    )


@routes.post("/bodhi/v1/logout", **open_to_all())
async def log_out(response: Response) -> dict[str, str]:
    """Forget the session in this browser."""
    for cookie in COOKIES:
        forget_cookie(response, cookie)
    return {"location": HOME_PAGE}


@routes.post("/bodhi/v1/auth/initiate", **open_to_all())
async def begin_sign_in(rooms: Rooms, request: Request, response: Response) -> dict[str, str]:
    """Where a browser goes to sign in by the provider (201); home, for one who has (200)."""
    if (await show_user(rooms, request))["token_type"] == "session":
        return {"location": HOME_PAGE}
    if not rooms.access.oidc.is_configured:
        raise NoSuchSignIn("this server signs people in by name and password")
    response.status_code = 201
    return {"location": f"{PREFIX}{SIGN_IN_PATH}"}


@routes.post("/bodhi/v1/auth/callback", **open_to_all())
async def end_sign_in() -> dict[str, str]:
    """Refused: the provider sends browsers back to Ostler's own path, where the session begins."""
    raise NoSuchSignIn(
        "sign-ins do not end here", hint=f"The provider sends browsers to {PREFIX}{SIGN_IN_PATH}/callback."
    )


@routes.post("/bodhi/v1/auth/request-access", **open_to_all())
async def request_access() -> dict[str, str]:
    """Refused: applications get a key of their own."""
    raise NoSuchSignIn("applications are given a key here", hint="Make one with POST /bodhi/v1/tokens.")
