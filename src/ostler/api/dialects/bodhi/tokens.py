"""API tokens of one's own: keys of ours that begin as BodhiApp's do."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Response
from pydantic import Field

from ostler.access.key_records import NOBODY, Key, KeyNameTaken, KeyNotFound, Owner
from ostler.access.keys import BODHI_PREFIX
from ostler.api.dialects.bodhi.door import BodhiBody, Paged, SessionDoor, router
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.principals import Principal, Role

routes = router("tokens", SessionDoor)

TokenId = Annotated[int, Path(ge=1, le=2**31 - 1)]
Scope = Literal["scope_token_user", "scope_token_power_user"]

SCOPES = {Role.USER: "scope_token_user", Role.POWER_USER: "scope_token_power_user"}
SCOPE_PREFIX = "scope_token_"
_ROLES = {scope: role for role, scope in SCOPES.items()}
_SORTS = {"name": "name", "created_at": "created_at", "last_used": "last_used_at", "expires_at": "expires_at"}
DEFAULT_NAME = "token"


class TokenIn(BodhiBody):
    """A new token: what it may do, and until when."""

    name: str | None = Field(None, max_length=90)
    scope: Scope = "scope_token_user"
    expires_at: datetime | None = Field(None, strict=False)


class TokenChanges(BodhiBody):
    """The name, and whether it works. Scope and end cannot be changed."""

    name: str | None = Field(None, max_length=90)
    status: Literal["active", "inactive"] | None = None


@routes.get("/bodhi/v1/tokens", **needs(Role.POWER_USER))
async def list_tokens(rooms: Rooms, who: Who, page: Paged) -> dict[str, Any]:
    """Your own tokens, the newest first unless asked otherwise; never their secrets."""
    sort = _SORTS.get(page.sort or "")
    found = await rooms.keys.list(
        owner=_owner(who),
        created_by=who.name if who.user_id is None else None,
        sort=sort or "created_at",
        descending=page.descending if sort else True,
        limit=page.page_size,
        offset=page.offset,
    )
    return page.answer([_item(key) for key in found.items], found.total)


@routes.post("/bodhi/v1/tokens", status_code=201, **needs(Role.POWER_USER))
async def create_token(rooms: Rooms, who: Who, body: TokenIn, response: Response) -> dict[str, Any]:
    """Make a token; it is shown in `token`, this once."""
    response.headers["Cache-Control"] = "no-store"
    name = (body.name or "").strip()
    try:
        key, token = await _make(rooms, who, body, name or f"{DEFAULT_NAME}-{secrets.token_hex(4)}")
    except KeyNameTaken:  # names are one's own with BodhiApp; ours are the server's
        key, token = await _make(rooms, who, body, f"{name}-{secrets.token_hex(4)}")
    return {**_item(key), "token": token}


@routes.put("/bodhi/v1/tokens/{id}", **needs(Role.POWER_USER))
async def change_token(rooms: Rooms, who: Who, id: TokenId, body: TokenChanges) -> dict[str, Any]:
    """Rename one of your tokens, or switch it off or on; that holds at once."""
    key = await rooms.keys.get(id)
    if not _is_own(key, who):
        raise KeyNotFound(f"you have no token {id}", id=id)
    if body.name is not None and body.name != key.name:
        key = await rooms.keys.rename(id, body.name, who)
    if body.status is not None:
        key = await rooms.keys.switch(id, who, disabled=body.status == "inactive")
    return _item(key)


async def _make(rooms: Services, who: Principal, body: TokenIn, name: str) -> tuple[Key, str]:
    return await rooms.keys.create(
        name,
        _ROLES[body.scope],
        who,
        expires_at=body.expires_at,
        owner=_owner(who),
        prefix=BODHI_PREFIX,
    )


def _owner(who: Principal) -> Owner:
    return NOBODY if who.user_id is None else Owner(who.user_id, who.org_id)


def _is_own(key: Key, who: Principal) -> bool:
    if who.user_id is None:
        return key.user_id is None and key.created_by == who.name
    return key.user_id == who.user_id


def _item(key: Key) -> dict[str, Any]:
    scope = SCOPES.get(key.role, f"{SCOPE_PREFIX}{key.role.label}")
    return {
        "id": str(key.id),
        "name": key.name,
        "scope": scope,
        "scopes": scope,
        "status": "inactive" if key.disabled else "active",
        "token_prefix": key.prefix,
        "user_id": None if key.user_id is None else str(key.user_id),
        "created_at": key.created_at,
        "updated_at": key.created_at,
        "last_used": key.last_used_at,
        "expires_at": key.expires_at,
    }
