"""Sign-in by a provider (OpenID Connect): the way there and back, for browsers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse

from ostler.access.browser import host_name, is_loopback_name
from ostler.access.oidc.service import LIFETIME_S
from ostler.access.sessions import COOKIE, LIFETIME
from ostler.api.door import PREFIX, open_to_all, router
from ostler.api.services import Rooms, Services
from ostler.api.session_cookies import set_cookie
from ostler.api.shapes import Out
from ostler.core.errors import Conflict

routes = router("session")

PATH = "/session/oidc"
STATE_COOKIE = "ostler_oidc"


class NoWayBack(Conflict):
    """Where the provider shall send people back to is not known."""

    hint = "Set oidc_redirect_uri to https://THIS-SERVER/ostler/v1/session/oidc/callback"


class WaysOut(Out):
    """The ways to sign in. `oidc`: there is a provider, at GET /ostler/v1/session/oidc."""

    password: bool
    oidc: bool


@routes.get("/session/ways", response_model=WaysOut, **open_to_all())
async def list_ways(rooms: Rooms) -> Any:
    """How people may sign in."""
    return {"password": True, "oidc": rooms.access.oidc.is_configured}


@routes.get(PATH, status_code=303, response_class=RedirectResponse, **open_to_all())
async def begin(
    rooms: Rooms,
    request: Request,
    then: Annotated[
        str | None, Query(alias="next", max_length=1_000, description="Own path to go to afterwards.")
    ] = None,
) -> Response:
    """Send a browser to the provider to sign in there."""
    begun = await rooms.access.oidc.begin(_way_back(rooms, request), then)
    answer = RedirectResponse(begun.url, status_code=303)
    answer.set_cookie(
        STATE_COOKIE,
        begun.cookie,
        max_age=LIFETIME_S,
        path=PREFIX + PATH,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@routes.get(f"{PATH}/callback", status_code=303, response_class=RedirectResponse, **open_to_all())
async def finish(
    rooms: Rooms,
    request: Request,
    code: Annotated[str | None, Query(max_length=4_000)] = None,
    state: Annotated[str | None, Query(max_length=1_000)] = None,
    error: Annotated[str | None, Query(max_length=1_000)] = None,
    error_description: Annotated[str | None, Query(max_length=4_000)] = None,
    iss: Annotated[str | None, Query(max_length=1_000)] = None,
) -> Response:
    """Where the provider sends the browser back to: the session begins, and the browser goes on."""
    given = {
        "code": code, "state": state, "error": error, "error_description": error_description, "iss": iss,
    }  # fmt: skip
    answer = {name: value for name, value in given.items() if value is not None}
    value, _, then = await rooms.access.sign_in_by_provider(answer, request.cookies.get(STATE_COOKIE))
    response = RedirectResponse(then, status_code=303)
    set_cookie(request, response, COOKIE, value, LIFETIME)
    response.delete_cookie(STATE_COOKIE, path=PREFIX + PATH, httponly=True, samesite="lax")
    return response


def _way_back(rooms: Services, request: Request) -> str:
    """As the settings say; only on this machine is the address believed that the browser used."""
    if (fixed := rooms.settings.current.oidc_redirect_uri) is not None:
        return fixed
    host = request.headers.get("host", "")
    if not is_loopback_name(host_name(host)):
        raise NoWayBack("the setting oidc_redirect_uri is not set")
    return f"{request.url.scheme}://{host}{PREFIX}{PATH}/callback"
