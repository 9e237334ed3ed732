"""API keys: everybody's for administrators, one's own for each person."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from pydantic import Field

from ostler.access.key_records import Key, KeyNotFound, Owner
from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.words import Id, IdFilter, Text, order, part, with_zone
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.comma_lists import comma_list
from ostler.core.errors import NotAllowed
from ostler.core.principals import SCOPES, Principal, Role

routes = router("keys")

_SORTS = {"id": "id", "created_at": "created_at", "last_used_at": "last_used_at"}
_EVERY_SCOPE = ",".join(SCOPES)


class MyKeyIn(CortexBody):
    """A new key; `scopes` and `ip_allowlist` are lists with commas, an address may be a network."""

    scopes: str = Field(_EVERY_SCOPE, max_length=200)
    expires_at: datetime | None = None
    ip_allowlist: str = Field("", max_length=10_000)


class KeyIn(MyKeyIn):
    """A new key, and whose it is."""

    user_id: int | None = Field(None, ge=1, le=2**31 - 1)
    org_id: int | None = Field(None, ge=1, le=2**31 - 1)


@routes.get("/admin/keys", **needs(Role.ADMIN))
async def list_keys(
    rooms: Rooms,
    include_disabled: bool = False,
    org_id: IdFilter = None,
    user_id: IdFilter = None,
    q: Text = None,
    sort: str | None = None,
    include_names: bool = True,
    limit: int = 100,
    offset: int = 0,
) -> list[dict[str, Any]]:
    """Every key, without its secret. Sort by id, created_at, last_used_at as `id:asc`."""
    found = await rooms.keys.list(
        owner=Owner(user_id, org_id),
        prefix=q,
        disabled=None if include_disabled else False,
        **order(sort, _SORTS, "id"),
        **part(limit, offset),
    )
    return await _shown(rooms, found.items, with_names=include_names)


@routes.post("/admin/keys", **needs(Role.ADMIN))
async def create_key(rooms: Rooms, who: Who, body: KeyIn) -> dict[str, Any]:
    """Make a key; it is shown in `token`, this once."""
    return await _make(rooms, who, body, Owner(body.user_id, body.org_id), "key")


@routes.delete("/admin/keys/{key_id}", **needs(Role.ADMIN))
async def revoke_key(rooms: Rooms, who: Who, key_id: Id) -> dict[str, str]:
    """Switch a key off for good; it stays in the list of those that are disabled."""
    await rooms.keys.switch(key_id, who, disabled=True)
    return {"status": "ok"}


@routes.get("/admin/me/keys", **needs(Role.USER))
async def list_my_keys(rooms: Rooms, who: Who, include_disabled: bool = False) -> list[dict[str, Any]]:
    """Your own keys."""
    if who.user_id is None:
        return []
    disabled = None if include_disabled else False
    found = await rooms.keys.list(
        owner=Owner(who.user_id), disabled=disabled, sort="id", descending=True, limit=1_000
    )
    return await _shown(rooms, found.items, with_names=True)


@routes.post("/admin/me/keys", **needs(Role.USER))
async def create_my_key(rooms: Rooms, who: Who, body: MyKeyIn) -> dict[str, Any]:
    """Make a key of your own; it is shown in `token`, this once."""
    _refuse_keys(who)
    return await _make(rooms, who, body, Owner(who.user_id, who.org_id), who.name)


@routes.delete("/admin/me/keys/{key_id}", **needs(Role.USER))
async def revoke_my_key(rooms: Rooms, who: Who, key_id: Id) -> dict[str, str]:
    """Switch a key of your own off; a key of somebody else is not found."""
    _refuse_keys(who)
    key = await rooms.keys.get(key_id)
    if key.user_id != who.user_id:
        raise KeyNotFound(f"you have no key {key_id}", key=key_id)
    await rooms.keys.switch(key_id, who, disabled=True)
    return {"status": "ok"}


def _refuse_keys(who: Principal) -> None:
    """A key may not make keys for its person: it may be bounded, and they would not be."""
    if who.key_id is not None:
        raise NotAllowed("a key may not make or revoke keys", hint="Sign in with name and password.")


async def _make(rooms: Services, who: Principal, body: MyKeyIn, owner: Owner, called: str) -> dict[str, Any]:
    """Keys have a name with us: one is made, as Cortex's have none."""
    addresses = comma_list(body.ip_allowlist)
    key, token = await rooms.keys.create(
        f"{called[:80]} {secrets.token_hex(4)}",
        Role.USER,
        who,
        expires_at=with_zone(body.expires_at),
        owner=owner,
        scopes=comma_list(body.scopes),
        addresses=addresses or None,
    )
    return {"id": key.id, "prefix": key.prefix, "token": token}


async def _shown(rooms: Services, keys: list[Key], *, with_names: bool) -> list[dict[str, Any]]:
    organisations = {key.org_id for key in keys if key.org_id is not None} if with_names else set()
    names = await rooms.access.organisations.names(organisations) if organisations else {}
    return [_item(rooms, key, names, with_names) for key in keys]


def _item(rooms: Services, key: Key, organisations: dict[int, str], with_names: bool) -> dict[str, Any]:
    user = rooms.access.users.find(key.user_id) if with_names and key.user_id is not None else None
    return {
        "id": key.id,
        "prefix": key.prefix,
        "scopes": _EVERY_SCOPE if key.scopes is None else ",".join(key.scopes),
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "disabled": key.disabled,
        "user_id": key.user_id,
        "org_id": key.org_id,
        "created_at": key.created_at,
        "username": user.name if user else None,
        "org_name": None if key.org_id is None else organisations.get(key.org_id),
    }
