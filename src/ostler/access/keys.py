"""API keys: made once, shown once, kept as a hash, found in memory."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from ostler.access.names import check_name, check_patterns, read_limits
from ostler.access.tables import KeyRow
from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit
from ostler.core.errors import Conflict, InvalidField, NotFound, Unauthenticated
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import Limits, Principal, Role
from ostler.core.queries import check_sort, order_by, page_of

PREFIX = "ostler-"
SHOWN_PREFIX = len(PREFIX) + 4
_SHAPE = re.compile(r"ostler-[A-Za-z0-9_-]{43}")
SORTS = ("name", "id", "created_at", "expires_at", "last_used_at", "role")


class KeyNotFound(NotFound):
    """No key has this id or name."""

    hint = "See them with: ostler keys list"


class KeyNameTaken(Conflict):
    """Another key has this name."""

    hint = "Choose another name, or revoke that key first."


class KeyExpired(Unauthenticated):
    """The key was valid once."""

    hint = "Ask for a new key; an administrator makes one with: ostler keys create NAME"


@dataclass(frozen=True, slots=True)
class Key:
    """A stored key, without its secret. `prefix` are its first characters, to recognise it by.

    `models`: shell-style patterns of model names that it may use, None for all.
    """

    id: int
    name: str
    prefix: str
    role: Role
    models: tuple[str, ...] | None
    limits: Limits
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(slots=True)
class _Entry:
    sha256: str
    principal: Principal
    expires_at: datetime | None


def looks_like_key(token: str) -> bool:
    """True for text in the shape of our own keys, so that it is no placeholder."""
    return _SHAPE.fullmatch(token) is not None


class Keys:
    """Every key. `principal_of` is synchronous and touches only memory."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._by_hash: dict[str, _Entry] = {}
        self._changes = 0
        self._used: dict[int, datetime] = {}
        self._on_revoke: list[Callable[[int], None]] = []

    def on_revoke(self, listener: Callable[[int], None]) -> None:
        """Hear the id of each key that is revoked."""
        self._on_revoke.append(listener)

    async def refresh(self) -> None:
        """Read every key into memory; also takes in what another control plane changed."""
        changes = -1
        while changes != self._changes:  # else a key revoked meanwhile would come back to life
            changes = self._changes
            async with self._database.read() as session:
                rows = (await session.scalars(select(KeyRow))).all()
        self._by_hash = {row.sha256: _entry(row) for row in rows}

    def principal_of(self, token: str) -> Principal | None:
        """Who this key stands for; None for one that is not stored. Raises KeyExpired."""
        digest = _hash(token)
        entry = self._by_hash.get(digest)
        if entry is None or not hmac.compare_digest(entry.sha256, digest):
            return None
        now = self._clock.now()
        if entry.expires_at is not None and entry.expires_at <= now:
            raise KeyExpired(f"the key {entry.principal.name} has expired", key=entry.principal.name)
        if entry.principal.key_id is not None:
            self._used[entry.principal.key_id] = now
        return entry.principal

    async def create(
        self,
        name: str,
        role: Role,
        principal: Principal,
        *,
        models: tuple[str, ...] | None = None,
        expires_at: datetime | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
    ) -> tuple[Key, str]:
        """Make a key; the second value is the key itself, which is never shown again.

        Needs the role admin. Raises KeyNameTaken, InvalidField.
        """
        principal.require(Role.ADMIN, "make keys")
        check_name(name, "name")
        now = self._clock.now()
        if expires_at is not None:
            expires_at = _in_future(expires_at, now)
        checked = limits if isinstance(limits, Limits) else read_limits(limits or {})
        token = PREFIX + secrets.token_urlsafe(32)
        row = KeyRow(
            name=name,
            prefix=token[:SHOWN_PREFIX],
            sha256=_hash(token),
            role=role.label,
            models=None if models is None else list(check_patterns(models)),
            limits=_limits_json(checked),
            created_at=now,
            created_by=principal.name,
            expires_at=expires_at,
            last_used_at=None,
        )
        await self._store(row, principal)
        return self._key(row), token

    async def _store(self, row: KeyRow, principal: Principal) -> None:
        try:
            async with self._database.write() as session:
                session.add(row)
                await session.flush()
                created = NewEvent(
                    "key.created", "key", row.id, row.name, principal.name, data={"role": row.role}
                )
                await self._events.add(session, created)
                entry = _entry(row)
                after_commit(session, lambda: self._remember(entry))
        except IntegrityError as error:
            raise KeyNameTaken(f"there is already a key named {row.name!r}", key=row.name) from error

    async def list(
        self,
        *,
        search: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Key]:
        """One page of keys. Raises InvalidField for an unknown sort."""
        check_sort("keys", sort, SORTS)
        query = select(KeyRow)
        if search:
            query = query.where(KeyRow.name.icontains(search, autoescape=True))
        order = order_by(KeyRow, sort, descending)
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(self._key)

    async def get(self, key: int | str) -> Key:
        """The key with this id or name. Raises KeyNotFound."""
        async with self._database.read() as session:
            row = await session.scalar(select(KeyRow).where(_which(key)))
        if row is None:
            raise KeyNotFound(f"there is no key {key!r}", key=key)
        return self._key(row)

    async def revoke(self, key: int | str, principal: Principal) -> Key:
        """Delete a key; it stops working at once. Needs the role admin. Raises KeyNotFound."""
        principal.require(Role.ADMIN, "revoke keys")
        async with self._database.write() as session:
            row = await session.scalar(select(KeyRow).where(_which(key)).with_for_update())
            if row is None:
                raise KeyNotFound(f"there is no key {key!r}", key=key)
            revoked, digest = self._key(row), row.sha256
            await session.delete(row)
            await self._events.add(
                session, NewEvent("key.revoked", "key", revoked.id, revoked.name, principal.name)
            )
            after_commit(session, lambda: self._forget(revoked.id, digest))
        return revoked

    async def has_admin(self) -> bool:
        """True when a key with the role admin is stored."""
        async with self._database.read() as session:
            found = await session.scalar(select(KeyRow.id).where(KeyRow.role == Role.ADMIN.label).limit(1))
        return found is not None

    async def write_used(self) -> None:
        """Write when each key was used last, all in one transaction."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self._database.write() as session:
                for key_id, at in used.items():
                    await session.execute(update(KeyRow).where(KeyRow.id == key_id).values(last_used_at=at))
        except BaseException:
            self._used = {**used, **self._used}
            raise

    def _remember(self, entry: _Entry) -> None:
        self._changes += 1
        self._by_hash[entry.sha256] = entry

    def _forget(self, key_id: int, digest: str) -> None:
        self._changes += 1
        self._by_hash.pop(digest, None)
        self._used.pop(key_id, None)
        for listener in self._on_revoke:
            listener(key_id)

    def _key(self, row: KeyRow) -> Key:
        return Key(
            id=row.id,
            name=row.name,
            prefix=row.prefix,
            role=Role.parse(row.role),
            models=None if row.models is None else tuple(row.models),
            limits=_limits(row.limits),
            created_at=row.created_at,
            created_by=row.created_by,
            expires_at=row.expires_at,
            last_used_at=self._used.get(row.id, row.last_used_at),
        )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _which(key: int | str) -> Any:
    return KeyRow.id == key if isinstance(key, int) else KeyRow.name == key


def _limits_json(limits: Limits) -> dict[str, Any]:
    return {"requests_per_minute": limits.requests_per_minute, "concurrency": limits.concurrency}


def _limits(data: Mapping[str, Any]) -> Limits:
    return Limits(data.get("requests_per_minute"), data.get("concurrency"))


def _entry(row: KeyRow) -> _Entry:
    models = None if row.models is None else tuple(row.models)
    who = Principal(
        name=row.name,
        role=Role.parse(row.role),
        key_id=row.id,
        models=models,
        limits=_limits(row.limits),
    )
    return _Entry(row.sha256, who, row.expires_at)


def _in_future(expires_at: datetime, now: datetime) -> datetime:
    if expires_at.tzinfo is None:
        raise InvalidField(
            "expires_at", "expires_at needs a time zone", hint="For example 2030-01-31T00:00:00Z"
        )
    if expires_at <= now:
        raise InvalidField("expires_at", "expires_at is in the past")
    return expires_at
