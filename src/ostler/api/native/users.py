"""People who sign in, and their browser sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path, Request, Response
from pydantic import Field, SecretStr

from ostler.access.headers import read_credentials
from ostler.access.sessions import COOKIE, LIFETIME, Session
from ostler.access.users import User
from ostler.api.door import needs, open_to_all, router
from ostler.api.native.keys import Id, id_or_name, parse_role
from ostler.api.services import Rooms, Who
from ostler.api.session_cookies import forget_cookie, set_cookie
from ostler.api.shapes import Body, Listing, Out, PageOut, page_out, shape_of
from ostler.chats.service import owner_named
from ostler.core.principals import Principal, Role

routes = router("users")

UserRef = Annotated[str, Path(max_length=200, description="The person's id or name.")]


@shape_of(User, without=("session_epoch",))
class UserOut(Out):
    """A person."""


class UserIn(Body):
    """A new person."""

    name: str
    password: SecretStr
    role: str = "user"
    org_id: Id | None = None


class UserChanges(Body):
    """What to change; the person's open sessions end. `org_id` null: of no organisation."""

    password: SecretStr | None = None
    role: str | None = None
    disabled: bool | None = None
    org_id: Id | None = None


class SignIn(Body):
    """Name and password."""

    name: str = Field(max_length=200)
    password: SecretStr


class SessionOut(Out):
    """Who you are. `csrf_token` goes into the header X-CSRF-Token of every change from a browser."""

    name: str
    role: str
    kind: str = Field(description="session, key or local")
    models: list[str] | None = None
    expires_at: datetime | None = None
    csrf_token: str | None = None


@routes.get("/users", response_model=PageOut[UserOut], **needs(Role.ADMIN))
async def list_users(rooms: Rooms, who: Who, page: Listing) -> Any:
    """Everybody. Sort by name, id, role, created_at."""
    return page_out(await rooms.access.users.list(search=page.search, **page.order("name"), **page.part))


@routes.post("/users", response_model=UserOut, status_code=201, **needs(Role.ADMIN))
async def create_user(rooms: Rooms, who: Who, body: UserIn) -> Any:
    """Add a person."""
    password = body.password.get_secret_value()
    return await rooms.access.users.create(
        body.name, password, parse_role(body.role), who, org_id=body.org_id
    )


@routes.get("/users/{user}", response_model=UserOut, **needs(Role.ADMIN))
async def show_user(rooms: Rooms, who: Who, user: UserRef) -> Any:
    """One person."""
    return await rooms.access.users.get(id_or_name(user))


@routes.patch("/users/{user}", response_model=UserOut, **needs(Role.ADMIN))
async def change_user(rooms: Rooms, who: Who, user: UserRef, body: UserChanges) -> Any:
    """Change role, password or organisation, disable or enable."""
    return await rooms.access.users.update(
        id_or_name(user),
        who,
        role=None if body.role is None else parse_role(body.role),
        password=None if body.password is None else body.password.get_secret_value(),
        disabled=body.disabled,
        org_id=body.org_id if "org_id" in body.model_fields_set else "same",
    )


@routes.delete("/users/{user}", response_model=UserOut, **needs(Role.ADMIN))
async def delete_user(rooms: Rooms, who: Who, user: UserRef) -> Any:
    """Remove a person, and their conversations."""
    gone = await rooms.access.users.delete(id_or_name(user), who)
    await rooms.chats.clear(owner_named(gone.id))
    return gone


@routes.get("/session", response_model=SessionOut, tags=["session"], **needs(Role.USER))
async def show_session(rooms: Rooms, who: Who, request: Request) -> Any:
    """Who you are to this server."""
    given = read_credentials(request.scope["headers"])
    session = rooms.access.session_of(given) if who.user_id is not None else None
    return _session_out(who, session)


@routes.post("/session", response_model=SessionOut, tags=["session"], **open_to_all())
async def sign_in(rooms: Rooms, request: Request, response: Response, body: SignIn) -> Any:
    """Sign in with name and password; the answer sets the session's cookie."""
    address = request.client.host if request.client else "unknown"
    value, session = await rooms.access.sign_in(body.name, body.password.get_secret_value(), address)
    set_cookie(request, response, COOKIE, value, LIFETIME)
    return _session_out(session.user.principal, session)


@routes.delete("/session", status_code=204, tags=["session"], **open_to_all())
async def sign_out(response: Response) -> None:
    """Forget the session in this browser."""
    forget_cookie(response, COOKIE)


def _session_out(who: Principal, session: Session | None) -> dict[str, Any]:
    kind = "session" if session else "key" if who.key_id is not None else "local"
    return {
        "name": who.name,
        "role": who.role.label,
        "kind": kind,
        "models": who.models,
        "expires_at": session.expires_at if session else None,
        "csrf_token": session.csrf_token if session else None,
    }
