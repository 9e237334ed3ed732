"""People and organisations, for administrators."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SecretStr

from ostler.access.organisations import Organisation
from ostler.access.users import User
from ostler.api.dialects.cortex.door import CortexBody, router
from ostler.api.dialects.cortex.words import (
    ACTIVE,
    DISABLED,
    Id,
    IdFilter,
    Text,
    order,
    part,
    read_role,
    role_word,
)
from ostler.api.door import needs
from ostler.api.services import Rooms, Who
from ostler.chats.service import owner_named
from ostler.core.principals import Role

routes = router("people")

_USER_SORTS = {
    "id": "id",
    "username": "name",
    "created_at": "created_at",
    "role": "role",
    "status": "disabled",
}
_ORG_SORTS = {"id": "id", "name": "name", "created_at": "created_at"}


class UserIn(CortexBody):
    """A new person."""

    username: str = Field(max_length=255)
    password: SecretStr
    role: str = Field("User", max_length=50)
    org_id: int | None = Field(None, ge=1, le=2**31 - 1)


class UserChanges(CortexBody):
    """What to change; `org_id` null takes the person out of their organisation."""

    password: SecretStr | None = None
    role: str | None = Field(None, max_length=50)
    org_id: int | None = Field(None, ge=1, le=2**31 - 1)
    status: Literal["active", "disabled"] | None = None


class OrgIn(CortexBody):
    """An organisation's name."""

    name: str = Field(max_length=255)


@routes.get("/admin/users/lookup", **needs(Role.ADMIN))
async def look_users_up(rooms: Rooms, q: Text = None, limit: int = 100) -> list[dict[str, Any]]:
    """Names and ids of people, by name."""
    found = await rooms.access.users.list(search=q, **part(limit, 0, 1_000))
    return [{"id": user.id, "username": user.name} for user in found.items]


@routes.get("/admin/users", **needs(Role.ADMIN))
async def list_users(
    rooms: Rooms,
    q: Text = None,
    org_id: IdFilter = None,
    role: str | None = None,
    status: str | None = None,
    sort: str | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[dict[str, Any]]:
    """Everybody. Sort by id, username, created_at, role, status as `id:asc`."""
    found = await rooms.access.users.list(
        search=q,
        org_id=org_id,
        roles=[each for each in Role if role_word(each) == role] if role else None,
        disabled=status != ACTIVE if status else None,
        **order(sort, _USER_SORTS, "created_at"),
        **part(limit, offset),
    )
    return [_user(user) for user in found.items]


@routes.post("/admin/users", **needs(Role.ADMIN))
async def create_user(rooms: Rooms, who: Who, body: UserIn) -> dict[str, Any]:
    """Add a person."""
    password = body.password.get_secret_value()
    role = read_role(body.role)
    return _user(await rooms.access.users.create(body.username, password, role, who, org_id=body.org_id))


@routes.get("/admin/users/{user_id}", **needs(Role.ADMIN))
async def show_user(rooms: Rooms, user_id: Id) -> dict[str, Any]:
    """One person."""
    return _user(await rooms.access.users.get(user_id))


@routes.patch("/admin/users/{user_id}", **needs(Role.ADMIN))
async def change_user(rooms: Rooms, who: Who, user_id: Id, body: UserChanges) -> dict[str, Any]:
    """Change role, password, organisation or status."""
    changed = await rooms.access.users.update(
        user_id,
        who,
        role=None if body.role is None else read_role(body.role),
        password=None if body.password is None else body.password.get_secret_value(),
        disabled=None if body.status is None else body.status == DISABLED,
        org_id=body.org_id if "org_id" in body.model_fields_set else "same",
    )
    return _user(changed)


@routes.delete("/admin/users/{user_id}", **needs(Role.ADMIN))
async def delete_user(rooms: Rooms, who: Who, user_id: Id) -> dict[str, str]:
    """Remove a person and their conversations; their keys stay, without a person."""
    await rooms.access.users.delete(user_id, who)
    await rooms.chats.clear(owner_named(user_id))
    return {"status": "ok"}


@routes.get("/admin/orgs/lookup", **needs(Role.ADMIN))
async def look_orgs_up(rooms: Rooms, q: Text = None, limit: int = 100) -> list[dict[str, Any]]:
    """Names and ids of organisations, by name."""
    found = await rooms.access.organisations.list(search=q, **part(limit, 0, 1_000))
    return [{"id": organisation.id, "name": organisation.name} for organisation in found.items]


@routes.get("/admin/orgs", **needs(Role.ADMIN))
async def list_orgs(
    rooms: Rooms, q: Text = None, sort: str | None = None, limit: int = 100, offset: int = 0
) -> list[dict[str, Any]]:
    """Every organisation. Sort by id, name, created_at as `id:asc`."""
    found = await rooms.access.organisations.list(
        search=q, **order(sort, _ORG_SORTS, "created_at"), **part(limit, offset)
    )
    return [_org(organisation) for organisation in found.items]


@routes.post("/admin/orgs", **needs(Role.ADMIN))
async def create_org(rooms: Rooms, who: Who, body: OrgIn) -> dict[str, Any]:
    """Add an organisation."""
    return _org(await rooms.access.organisations.create(body.name, who))


@routes.get("/admin/orgs/{org_id}", **needs(Role.ADMIN))
async def show_org(rooms: Rooms, org_id: Id) -> dict[str, Any]:
    """One organisation."""
    return _org(await rooms.access.organisations.get(org_id))


@routes.patch("/admin/orgs/{org_id}", **needs(Role.ADMIN))
async def rename_org(rooms: Rooms, who: Who, org_id: Id, body: OrgIn) -> dict[str, Any]:
    """Give an organisation another name."""
    return _org(await rooms.access.organisations.rename(org_id, body.name, who))


@routes.delete("/admin/orgs/{org_id}", **needs(Role.ADMIN))
async def delete_org(rooms: Rooms, who: Who, org_id: Id) -> dict[str, str]:
    """Remove an organisation; its people and keys stay."""
    await rooms.access.organisations.delete(org_id, who)
    return {"status": "ok"}


def _user(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "username": user.name,
        "role": role_word(user.role),
        "org_id": user.org_id,
        "status": DISABLED if user.disabled else ACTIVE,
        "created_at": user.created_at,
    }


def _org(organisation: Organisation) -> dict[str, Any]:
    return {"id": organisation.id, "name": organisation.name, "created_at": organisation.created_at}
