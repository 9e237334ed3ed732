"""API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import Field

from ostler.access.key_records import Key, Owner
from ostler.access.names import read_limits
from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Listing, Out, PageOut, page_out, shape_of
from ostler.core.errors import InvalidField
from ostler.core.principals import Role

routes = router("keys")

Id = Annotated[int, Field(ge=1, le=2**31 - 1)]
KeyRef = Annotated[str, Path(max_length=200, description="The key's id or name.")]


@shape_of(Key)
class KeyOut(Out):
    """A key without its secret; `prefix` are its first characters."""


class NewKeyOut(KeyOut):
    """A key with its secret, which is shown this once."""

    key: str


class KeyIn(Body):
    """A new key. `models`: patterns of the model names that it may use, such as `qwen*`; null for all.

    `#7` among them is the model with that id, whatever it is called.

    `scopes`: kinds of inference that it is for; null for all. `addresses`: addresses and networks from
    which it may be used; null for everywhere. `user_id` and `org_id` say whose it is.
    """

    name: str
    role: str = Field("user", examples=["user", "power_user", "manager", "admin"])
    models: list[str] | None = None
    expires_at: datetime | None = None
    limits: dict[str, Any] | None = Field(None, examples=[{"requests_per_minute": 60, "concurrency": 4}])
    scopes: list[str] | None = Field(None, examples=[["chat", "embeddings"]], max_length=20)
    addresses: list[str] | None = Field(None, examples=[["10.0.0.0/8"]])
    user_id: Id | None = None
    org_id: Id | None = None


class KeyChanges(Body):
    """A key that is switched off is kept and does not work."""

    disabled: bool


@routes.get("/keys", response_model=PageOut[KeyOut], **needs(Role.ADMIN))
async def list_keys(rooms: Rooms, who: Who, page: Listing) -> Any:
    """Every key. Sort by name, id, role, created_at, expires_at, last_used_at."""
    return page_out(await rooms.keys.list(search=page.search, **page.order("name"), **page.part))


@routes.post("/keys", response_model=NewKeyOut, status_code=201, **needs(Role.ADMIN))
async def create_key(rooms: Rooms, who: Who, body: KeyIn) -> Any:
    """Make a key. The answer holds it in `key`: keep it, it is not shown again."""
    key, token = await rooms.keys.create(
        body.name,
        parse_role(body.role),
        who,
        models=None if body.models is None else tuple(body.models),
        expires_at=body.expires_at,
        limits=read_limits(body.limits or {}),
        owner=Owner(body.user_id, body.org_id),
        scopes=body.scopes,
        addresses=body.addresses,
    )
    return {**KeyOut.model_validate(key).model_dump(), "key": token}


@routes.get("/keys/{key}", response_model=KeyOut, **needs(Role.ADMIN))
async def show_key(rooms: Rooms, who: Who, key: KeyRef) -> Any:
    """One key, without its secret."""
    return await rooms.keys.get(id_or_name(key))


@routes.patch("/keys/{key}", response_model=KeyOut, **needs(Role.ADMIN))
async def change_key(rooms: Rooms, who: Who, key: KeyRef, body: KeyChanges) -> Any:
    """Switch a key off or on; it holds at once."""
    return await rooms.keys.switch(id_or_name(key), who, disabled=body.disabled)


@routes.delete("/keys/{key}", response_model=KeyOut, **needs(Role.ADMIN))
async def revoke_key(rooms: Rooms, who: Who, key: KeyRef) -> Any:
    """Revoke a key; it stops working at once."""
    return await rooms.keys.revoke(id_or_name(key), who)


def id_or_name(text: str) -> int | str:
    """A number is an id; names that are numbers do not exist."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else text


def parse_role(text: str) -> Role:
    """A role by its name. Raises InvalidField."""
    try:
        return Role.parse(text)
    except ValueError as error:
        raise InvalidField("role", str(error)) from error
