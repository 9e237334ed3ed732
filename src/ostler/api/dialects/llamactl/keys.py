"""Keys for inference: made, listed and revoked. Those that manage are not seen here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import StrictInt, StrictStr

from ostler.access.key_records import Key, KeyNotFound
from ostler.access.names import check_name
from ostler.api.dialects.base import Refused
from ostler.api.dialects.llamactl.door import LlamactlBody, LlamactlRouter
from ostler.api.dialects.llamactl.errors import says
from ostler.api.door import needs
from ostler.api.services import Rooms, Services, Who
from ostler.core.errors import InvalidField
from ostler.core.principals import Role

routes = LlamactlRouter("keys")

ROOT = "/api/v1/auth/keys"
ALL, SOME = "allow_all", "per_instance"
EVERY = 2**31 - 1
_keepers_of_keys = needs(Role.ADMIN)

KeyId = Annotated[str, Path(max_length=50, description="The key's number.")]


class KeyIn(LlamactlBody):
    """A new key. `expires_at` is in seconds since 1970."""

    name: StrictStr = ""
    permission_mode: StrictStr = ""
    expires_at: StrictInt | None = None
    instance_ids: list[StrictInt] | None = None


@routes.group_root("POST", ROOT, status_code=201, dependencies=[says("creation_failed")], **_keepers_of_keys)
async def create_key(rooms: Rooms, who: Who, body: KeyIn) -> dict[str, Any]:
    """Make a key. It is in `key`, this once."""
    try:
        name = check_name(body.name, "name")
    except InvalidField as error:
        raise Refused("invalid_name", error.message, hint=error.hint) from error
    if body.permission_mode not in (ALL, SOME):
        raise Refused("invalid_permission_mode", f"permission_mode must be {ALL} or {SOME}")
    models = _allowed(rooms, body) if body.permission_mode == SOME else None
    key, token = await rooms.keys.create(
        name, Role.USER, who, models=models, expires_at=_expiry(rooms, body.expires_at)
    )
    return {**key_out(key), "key": token}


@routes.group_root("GET", ROOT, **_keepers_of_keys)
async def list_keys(rooms: Rooms) -> list[dict[str, Any]]:
    """Every key for inference, the newest first."""
    found = await rooms.keys.list(sort="id", descending=True, limit=EVERY)
    return [key_out(key) for key in found.items if key.role is Role.USER]


@routes.at("GET", f"{ROOT}/{{key_id}}/permissions", **_keepers_of_keys)
async def list_permissions(rooms: Rooms, key_id: KeyId) -> list[dict[str, Any]]:
    """The instances that a key may use; none where it may use all of them."""
    key = await _key(rooms, key_id)
    return [
        {"instance_id": model.id, "instance_name": model.name}
        for model in sorted(rooms.models.all(), key=lambda model: model.id)
        if key.models is not None and set(key.models) & set(model.listed_as)
    ]


@routes.group_root("GET", f"{ROOT}/{{key_id}}", **_keepers_of_keys)
async def show_key(rooms: Rooms, key_id: KeyId) -> dict[str, Any]:
    """One key, without its secret."""
    return key_out(await _key(rooms, key_id))


@routes.group_root(
    "DELETE",
    f"{ROOT}/{{key_id}}",
    status_code=204,
    dependencies=[says("deletion_failed")],
    **_keepers_of_keys,
)
async def revoke_key(rooms: Rooms, who: Who, key_id: KeyId) -> Response:
    """Revoke a key; it stops working at once."""
    await rooms.keys.revoke((await _key(rooms, key_id)).id, who)
    return Response(status_code=204)


async def _key(rooms: Services, key_id: str) -> Key:
    if not key_id.isdecimal() or len(key_id) > 18:
        raise Refused("invalid_id", f"{key_id[:50]!r} is no number of a key")
    key = await rooms.keys.get(int(key_id))
    if key.role is not Role.USER:
        raise KeyNotFound("API key not found", key=key.id)
    return key


def _allowed(rooms: Services, body: KeyIn) -> tuple[str, ...]:
    if not body.instance_ids:
        raise Refused("missing_permissions", f"instance_ids must name at least one instance with {SOME}")
    known = {model.id for model in rooms.models.all()}
    for number in body.instance_ids:
        if number not in known:
            raise Refused("invalid_instance_id", f"there is no instance with the id {number}")
    return tuple(f"#{number}" for number in sorted(set(body.instance_ids)))


def _expiry(rooms: Services, at: int | None) -> datetime | None:
    if at is None:
        return None
    try:
        expires_at = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        expires_at = None
    if expires_at is None or expires_at <= rooms.clock.now():
        raise Refused("invalid_expires_at", "Expiration time must be in future")
    return expires_at


def key_out(key: Key) -> dict[str, Any]:
    """A key as llamactl shows it; times are seconds since 1970."""
    used = _seconds(key.last_used_at)
    return {
        "id": key.id,
        "name": key.name,
        "user_id": "system" if key.user_id is None else str(key.user_id),
        "permission_mode": ALL if key.models is None else SOME,
        "expires_at": _seconds(key.expires_at),
        "created_at": _seconds(key.created_at),
        "updated_at": used or _seconds(key.created_at),
        "last_used_at": used,
    }


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
