"""API keys: made once, shown once, kept as a hash, found in memory."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.access.addresses import check_addresses, is_within
from ostler.access.foreign import (
    PREFIX_LENGTH,
    UNMARKED,
    ForeignSecrets,
    is_foreign_hash,
    is_unmarked,
    looks_foreign,
    looks_unmarked,
)
from ostler.access.key_entries import Entry, entry_of, foreign_mark, hash_of, in_future, limits_json
from ostler.access.key_records import (
    NOBODY,
    Key,
    KeyDisabled,
    KeyExpired,
    KeyNameTaken,
    KeyNotFound,
    Owner,
    WrongAddress,
)
from ostler.access.names import check_name, check_patterns, check_scopes, read_limits
from ostler.access.organisations import check_organisation
from ostler.access.tables import KeyRow, UserRow
from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit, named_row, row_to_change
from ostler.core.errors import InvalidField
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import Limits, Principal, Role
from ostler.core.queries import check_sort, order_by, page_of

PREFIX = "ostler-"
BODHI_PREFIX = "sk-bodhi-"
SHOWN_RANDOM = 4
"""How many characters of a key are shown after its prefix."""
SHORTEST = 16
"""Fewest characters of a key that was made elsewhere."""
_SHAPE = re.compile(rf"(?:{PREFIX}|{BODHI_PREFIX})[A-Za-z0-9_-]{{43}}")
SORTS = ("name", "id", "created_at", "expires_at", "last_used_at", "role")


def looks_like_key(token: str) -> bool:
    """True for text in the shape of our own keys, so that it is no placeholder."""
    return _SHAPE.fullmatch(token) is not None


class Keys:
    """Every key. `principal_of` is synchronous and touches only memory."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._by_hash: dict[str, Entry] = {}
        self.has_foreign = False
        self._changes = 0
        self._used: dict[int, datetime] = {}
        self._on_revoke: list[Callable[[int], None]] = []
        self._foreign = ForeignSecrets()

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
        self._by_hash = {row.sha256: entry_of(row) for row in rows}
        self._count_foreign()

    def _count_foreign(self) -> None:
        self.has_foreign = any(entry.foreign_hash for entry in self._by_hash.values())

    async def adopt(self, token: str) -> None:
        """Make a key of another system one of ours, where this is its first use; else do nothing."""
        if not looks_foreign(token) or hash_of(token) in self._by_hash:
            return None
        for entry in self._candidates(token):
            if entry.foreign_hash and await self._foreign.matches(entry.foreign_hash, token):
                return await self._exchange(entry, token)
        return None

    def _candidates(self, token: str) -> list[Entry]:
        """The entries that a foreign key may belong to, the newest first."""
        if not looks_unmarked(token):
            entry = self._by_hash.get(foreign_mark(token[:PREFIX_LENGTH]))
            return [] if entry is None else [entry]
        unmarked = [e for e in self._by_hash.values() if e.foreign_hash and is_unmarked(e.foreign_hash)]
        return sorted(unmarked, key=lambda entry: -(entry.principal.key_id or 0))

    async def _exchange(self, entry: Entry, token: str) -> None:
        """From now on the key is known by its SHA-256."""
        mark = entry.sha256
        async with self._database.write() as session:
            row = await row_to_change(session, KeyRow, entry.principal.key_id)
            if row is None or row.foreign_hash != entry.foreign_hash:
                return
            row.sha256, row.foreign_hash = hash_of(token), None
            await session.flush()
            ours = entry_of(row)

            def exchange() -> None:
                self._by_hash.pop(mark, None)
                self._remember(ours)

            after_commit(session, exchange)

    def principal_of(self, token: str, address: str | None = None) -> Principal | None:
        """Who this key stands for; None for one that is not stored. `address` is where it comes from.

        Raises KeyExpired, KeyDisabled, WrongAddress.
        """
        digest = hash_of(token)
        entry = self._by_hash.get(digest)
        if entry is None or not hmac.compare_digest(entry.sha256, digest):
            return None
        now = self._clock.now()
        if entry.expires_at is not None and entry.expires_at <= now:
            raise KeyExpired(f"the key {entry.principal.name} has expired", key=entry.principal.name)
        if entry.disabled:
            raise KeyDisabled(f"the key {entry.principal.name} is switched off", key=entry.principal.name)
        if entry.networks is not None and not is_within(address, entry.networks):
            raise WrongAddress(
                f"the key {entry.principal.name} may not be used from {address or 'an unknown address'}",
                key=entry.principal.name,
            )
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
        owner: Owner = NOBODY,
        scopes: Iterable[str] | None = None,
        addresses: Iterable[str] | None = None,
        prefix: str = PREFIX,
    ) -> tuple[Key, str]:
        """Make a key; the second value is the key itself, which is never shown again.

        `prefix` is how it begins, one that `looks_like_key` knows.
        Needs the role admin, or be the owner and have no more rights than the owner has. Raises
        KeyNameTaken, InvalidField, NotAllowed.
        """
        if owner.user_id is None or owner.user_id != principal.user_id or role > principal.role:
            principal.require(Role.ADMIN, "make keys")
        check_name(name, "name")
        now = self._clock.now()
        if expires_at is not None:
            expires_at = in_future(expires_at, now)
        checked = limits if isinstance(limits, Limits) else read_limits(limits or {})
        token = prefix + secrets.token_urlsafe(32)
        row = self._row(name, role, principal, owner, scopes, addresses)
        row.prefix, row.sha256 = token[: len(prefix) + SHOWN_RANDOM], hash_of(token)
        row.models = None if models is None else list(check_patterns(models))
        row.limits, row.expires_at = limits_json(checked), expires_at
        await self._store(row, principal)
        return self._key(row), token

    async def take_over(
        self,
        name: str,
        prefix: str,
        foreign_hash: str,
        principal: Principal,
        *,
        models: tuple[str, ...] | None = None,
        owner: Owner = NOBODY,
        scopes: Iterable[str] | None = None,
        addresses: Iterable[str] | None = None,
        expires_at: datetime | None = None,
        last_used_at: datetime | None = None,
        disabled: bool = False,
        dry_run: bool = False,
    ) -> None:
        """Store a key of another system, for inference, by its first 8 characters (UNMARKED where they are
        not known) and its hash.

        At its first use it becomes one of ours. With `dry_run` it is only checked. Needs the role admin.
        Raises KeyNameTaken, InvalidField.
        """
        principal.require(Role.ADMIN, "make keys")
        if not is_foreign_hash(foreign_hash):
            raise InvalidField("foreign_hash", "this is no bcrypt or Argon2id hash")
        if len(prefix) != PREFIX_LENGTH or not prefix.isalnum():
            raise InvalidField("prefix", f"a key's prefix has {PREFIX_LENGTH} letters and digits")
        row = self._row(check_name(name, "name"), Role.USER, principal, owner, scopes, addresses)
        mark = foreign_mark(hash_of(foreign_hash) if prefix == UNMARKED else prefix)
        row.prefix, row.sha256, row.foreign_hash = prefix, mark, foreign_hash
        row.models = None if models is None else list(check_patterns(models))
        row.disabled, row.expires_at, row.last_used_at = disabled, expires_at, last_used_at
        if not dry_run:
            await self._store(row, principal)

    def _row(
        self,
        name: str,
        role: Role,
        principal: Principal,
        owner: Owner,
        scopes: Iterable[str] | None,
        addresses: Iterable[str] | None,
    ) -> KeyRow:
        """What every new key's row has; without the key itself, or the mark of a foreign one."""
        checked_scopes = check_scopes(scopes)
        return KeyRow(
            name=name,
            foreign_hash=None,
            role=role.label,
            models=None,
            limits={},
            user_id=owner.user_id,
            org_id=owner.org_id,
            scopes=None if checked_scopes is None else list(checked_scopes),
            addresses=None if addresses is None else list(check_addresses(addresses)),
            disabled=False,
            created_at=self._clock.now(),
            created_by=principal.name,
            expires_at=None,
            last_used_at=None,
        )

    async def take_over_secret(
        self, name: str, token: str, role: Role, principal: Principal, *, dry_run: bool = False
    ) -> bool:
        """Store a key of another system that is known in clear; False where it is stored already.

        With `dry_run` it is only checked. Needs the role admin. Raises KeyNameTaken, InvalidField.
        """
        principal.require(Role.ADMIN, "make keys")
        if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidField("key", f"a key has at least {SHORTEST} characters, and no spaces")
        if hash_of(token) in self._by_hash:
            return False
        row = self._row(check_name(name, "name"), role, principal, NOBODY, None, None)
        row.prefix, row.sha256 = token[: SHORTEST // 4], hash_of(token)
        if not dry_run:
            await self._store(row, principal)
        return True

    async def _store(self, row: KeyRow, principal: Principal) -> None:
        try:
            async with self._database.write() as session:
                await check_organisation(session, row.org_id)
                if row.user_id is not None and await session.get(UserRow, row.user_id) is None:
                    raise InvalidField("user_id", f"there is no person {row.user_id}")
                session.add(row)
                await session.flush()
                created = NewEvent(
                    "key.created", "key", row.id, row.name, principal.name, data={"role": row.role}
                )
                await self._events.add(session, created)
                entry = entry_of(row)
                after_commit(session, lambda: self._remember(entry))
        except IntegrityError as error:
            raise KeyNameTaken(f"there is already a key named {row.name!r}", key=row.name) from error

    async def list(
        self,
        *,
        search: str | None = None,
        owner: Owner = NOBODY,
        prefix: str | None = None,
        disabled: bool | None = None,
        created_by: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Key]:
        """One page of keys: of an owner, with this text in the prefix, switched off or not.

        `created_by`: those that belong to nobody and were made by whom this names. Raises InvalidField.
        """
        check_sort("keys", sort, SORTS)
        query = select(KeyRow)
        if owner.user_id is not None:
            query = query.where(KeyRow.user_id == owner.user_id)
        if owner.org_id is not None:
            query = query.where(KeyRow.org_id == owner.org_id)
        if prefix:
            query = query.where(KeyRow.prefix.icontains(prefix, autoescape=True))
        if disabled is not None:
            query = query.where(KeyRow.disabled.is_(disabled))
        if created_by is not None:
            query = query.where(KeyRow.user_id.is_(None), KeyRow.created_by == created_by)
        if search:
            query = query.where(KeyRow.name.icontains(search, autoescape=True))
        order = order_by(KeyRow, sort, descending)
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(self._key)

    async def get(self, key: int | str) -> Key:
        """The key with this id or name. Raises KeyNotFound."""
        async with self._database.read() as session:
            return self._key(await _row(session, key))

    async def revoke(self, key: int | str, principal: Principal) -> Key:
        """Delete a key; it stops working at once. Needs the role admin. Raises KeyNotFound."""
        principal.require(Role.ADMIN, "revoke keys")
        async with self._database.write() as session:
            row = await _row(session, key, to_change=True)
            revoked, digest = self._key(row), row.sha256
            await session.delete(row)
            await self._events.add(
                session, NewEvent("key.revoked", "key", revoked.id, revoked.name, principal.name)
            )
            after_commit(session, lambda: self._forget(revoked.id, digest))
        return revoked

    async def switch(self, key: int | str, principal: Principal, *, disabled: bool) -> Key:
        """Switch a key off or on; it holds at once. The owner may, and who has the role admin.

        Raises KeyNotFound, NotAllowed.
        """
        async with self._database.write() as session:
            row = await _row(session, key, to_change=True)
            _refuse_others(row, principal, "switch keys off and on")
            row.disabled = disabled
            kind = "key.disabled" if disabled else "key.enabled"
            await self._events.add(session, NewEvent(kind, "key", row.id, row.name, principal.name))
            entry = entry_of(row)
            after_commit(session, lambda: self._remember(entry))
        return self._key(row)

    async def rename(self, key: int | str, name: str, principal: Principal) -> Key:
        """Give a key another name. The owner may, and who has the role admin.

        Raises KeyNotFound, KeyNameTaken, InvalidField, NotAllowed.
        """
        check_name(name, "name")
        try:
            async with self._database.write() as session:
                row = await _row(session, key, to_change=True)
                _refuse_others(row, principal, "rename keys")
                row.name = name
                await session.flush()
                await self._events.add(session, NewEvent("key.renamed", "key", row.id, name, principal.name))
                entry = entry_of(row)
                after_commit(session, lambda: self._remember(entry))
        except IntegrityError as error:
            raise KeyNameTaken(f"there is already a key named {name!r}", key=name) from error
        return self._key(row)

    async def has_admin(self) -> bool:
        """True when a key with the role admin is stored that is not switched off."""
        query = select(KeyRow.id).where(KeyRow.role == Role.ADMIN.label, KeyRow.disabled.is_(False))
        async with self._database.read() as session:
            found = await session.scalar(query.limit(1))
        return found is not None

    def principals(self) -> Iterator[Principal]:
        """Whom the stored keys stand for, from memory."""
        return (entry.principal for entry in self._by_hash.values())

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

    def _remember(self, entry: Entry) -> None:
        self._changes += 1
        self._by_hash[entry.sha256] = entry
        self._count_foreign()

    def _forget(self, key_id: int, digest: str) -> None:
        self._changes += 1
        self._by_hash.pop(digest, None)
        self._count_foreign()
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
            limits=read_limits(row.limits),
            user_id=row.user_id,
            org_id=row.org_id,
            scopes=None if row.scopes is None else tuple(row.scopes),
            addresses=None if row.addresses is None else tuple(row.addresses),
            disabled=row.disabled,
            created_at=row.created_at,
            created_by=row.created_by,
            expires_at=row.expires_at,
            last_used_at=self._used.get(row.id, row.last_used_at),
        )


def _refuse_others(row: KeyRow, principal: Principal, what: str) -> None:
    if row.user_id is None or row.user_id != principal.user_id:
        principal.require(Role.ADMIN, what)


async def _row(session: AsyncSession, key: int | str, *, to_change: bool = False) -> KeyRow:
    row = await named_row(session, KeyRow, key, to_change=to_change)
    if row is None:
        raise KeyNotFound(f"there is no key {key!r}", key=key)
    return row
