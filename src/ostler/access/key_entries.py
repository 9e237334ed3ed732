"""What is kept in memory of a key, and how its secret is remembered."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ostler.access.addresses import Network, networks_of
from ostler.access.names import read_limits
from ostler.access.tables import KeyRow
from ostler.core.errors import InvalidField
from ostler.core.principals import Limits, Principal, Role


@dataclass(slots=True)
class Entry:
    """A key as requests meet it. `networks`: from where it may be used, None for everywhere."""

    sha256: str
    foreign_hash: str | None
    principal: Principal
    expires_at: datetime | None
    disabled: bool
    networks: tuple[Network, ...] | None


def hash_of(token: str) -> str:
    """The SHA-256 by which a key is found."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def foreign_mark(prefix: str) -> str:
    """Stands where the SHA-256 of a foreign key will stand; no hash looks like it."""
    return f"foreign:{prefix}"


def limits_json(limits: Limits) -> dict[str, Any]:
    """The limits that are set, as they are stored."""
    return {name: value for name, value in asdict(limits).items() if value is not None}


def entry_of(row: KeyRow) -> Entry:
    """The entry of a stored key."""
    models = None if row.models is None else tuple(row.models)
    who = Principal(
        name=row.name,
        role=Role.parse(row.role),
        key_id=row.id,
        user_id=row.user_id,
        org_id=row.org_id,
        models=models,
        scopes=None if row.scopes is None else frozenset(row.scopes),
        limits=read_limits(row.limits),
    )
    return Entry(
        row.sha256,
        row.foreign_hash,
        who,
        row.expires_at,
        row.disabled,
        None if row.addresses is None else networks_of(tuple(row.addresses)),
    )


def in_future(expires_at: datetime, now: datetime) -> datetime:
    """Give a time back that has a zone and is still to come. Raises InvalidField."""
    if expires_at.tzinfo is None:
        raise InvalidField(
            "expires_at", "expires_at needs a time zone", hint="For example 2030-01-31T00:00:00Z"
        )
    if expires_at <= now:
        raise InvalidField("expires_at", "expires_at is in the past")
    return expires_at
