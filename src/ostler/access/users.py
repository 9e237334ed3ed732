"""People who sign in with a name and a password (argon2)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from secrets import token_urlsafe
from typing import Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.access.foreign import ForeignSecrets, is_foreign_hash
from ostler.access.names import check_name
from ostler.access.organisations import check_organisation, organisation_named
from ostler.access.tables import KeyRow, UserRow
from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit, named_row, row_to_change
from ostler.core.errors import Conflict, InvalidField, NotFound, Unauthenticated
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import SYSTEM, Principal, Role
from ostler.core.queries import check_sort, order_by, page_of

MIN_PASSWORD = 8
MAX_PASSWORD = 1_024
SORTS = ("name", "id", "created_at", "role", "disabled")
HASHES_AT_ONCE = 2
"""Argon2 takes 64 MiB each time; more at once would let sign-ins eat the memory of models."""


class UserNotFound(NotFound):
    """No person has this id or name."""

    hint = "See them with: GET /ostler/v1/users"


class UserNameTaken(Conflict):
    """Another person has this name."""


class LastAdmin(Conflict):
    """After this change nobody could look after keys and people any more."""

    hint = "Make another administrator first."


class WrongPassword(Unauthenticated):
    """Name and password do not belong together, or the person is disabled."""

    hint = "Check the name and the password; an administrator can set a new one."


@dataclass(frozen=True, slots=True)
class User:
    """A person. `session_epoch` grows when all sessions of the person shall end."""

    id: int
    name: str
    role: Role
    org_id: int | None
    session_epoch: int
    disabled: bool
    created_at: datetime

    @property
    def principal(self) -> Principal:
        """This person as one who asks."""
        return Principal(name=self.name, role=self.role, user_id=self.id, org_id=self.org_id)


class Users:
    """Every person; `find` is in memory, for sessions."""

    def __init__(
        self, database: Database, events: EventLog, clock: Clock, hasher: PasswordHasher | None = None
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._hashing = asyncio.Semaphore(HASHES_AT_ONCE)
        self._foreign = ForeignSecrets()
        self._decoy: str | None = None
        self._changes = 0
        self._by_id: dict[int, User] = {}

    async def refresh(self) -> None:
        """Read every person into memory."""
        changes = -1
        while changes != self._changes:  # else one removed meanwhile would come back
            changes = self._changes
            async with self._database.read() as session:
                rows = (await session.scalars(select(UserRow))).all()
        self._by_id = {row.id: _user(row) for row in rows}

    def find(self, user_id: int) -> User | None:
        """The person with this id, from memory."""
        return self._by_id.get(user_id)

    async def create(
        self,
        name: str,
        password: str,
        role: Role,
        principal: Principal,
        *,
        org_id: int | None = None,
    ) -> User:
        """Add a person. Needs the role admin. Raises UserNameTaken, InvalidField."""
        principal.require(Role.ADMIN, "add people")
        row = self._new_row(name, role, await self._hash_checked(password))
        row.org_id = org_id
        return await self._store(row, principal)

    async def create_without_password(self, name: str, role: Role, principal: Principal) -> User:
        """Add a person whom no password lets in, until an administrator sets one. Raises as `create` does."""
        principal.require(Role.ADMIN, "add people")
        return await self._store(self._new_row(name, role, await self._hash(token_urlsafe())), principal)

    async def take_over(
        self,
        name: str,
        password_hash: str,
        role: Role,
        principal: Principal,
        *,
        org_id: int | None = None,
        disabled: bool = False,
    ) -> User:
        """Add a person of another system by the bcrypt hash of their password.

        It is replaced at their first sign-in. Needs the role admin. Raises UserNameTaken, InvalidField.
        """
        principal.require(Role.ADMIN, "add people")
        self.check_taking_over(name, password_hash)
        row = self._new_row(name, role, password_hash)
        row.org_id, row.disabled = org_id, disabled
        return await self._store(row, principal)

    def check_taking_over(self, name: str, password_hash: str) -> None:
        """Raise InvalidField where `take_over` would for these."""
        check_name(name, "name")
        if not is_foreign_hash(password_hash):
            raise InvalidField("password_hash", "the password is not kept as a bcrypt hash")

    async def create_owner(
        self, name: str, password: str, organisation: str | None = None, *, beside_keys: bool = False
    ) -> User | None:
        """Add the first administrator, of this organisation (made where there is none of the name).

        None where somebody administers already: a person, or (unless `beside_keys`) a key. Of several
        at once only one succeeds. Raises UserNameTaken, InvalidField.
        """
        if await self._is_administered(beside_keys=beside_keys):
            return None
        row = self._new_row(name, Role.ADMIN, await self._hash_checked(password))
        try:
            async with self._database.write() as session:
                if not self._database.is_sqlite:
                    await session.execute(text("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"))
                if await _has_admin(session, UserRow) or (
                    not beside_keys and await _has_admin(session, KeyRow)
                ):
                    return None
                if organisation:
                    row.org_id = await organisation_named(session, organisation, row.created_at)
                return await self._add(session, row, SYSTEM)
        except IntegrityError as error:
            raise UserNameTaken(f"there is already a person named {name!r}", user=name) from error

    def _new_row(self, name: str, role: Role, password_hash: str) -> UserRow:
        return UserRow(
            name=check_name(name, "name"),
            role=role.label,
            org_id=None,
            password_hash=password_hash,
            session_epoch=1,
            disabled=False,
            created_at=self._clock.now(),
        )

    async def _store(self, row: UserRow, principal: Principal) -> User:
        name = row.name
        try:
            async with self._database.write() as session:
                await check_organisation(session, row.org_id)
                return await self._add(session, row, principal)
        except IntegrityError as error:
            raise UserNameTaken(f"there is already a person named {name!r}", user=name) from error

    async def _add(self, session: AsyncSession, row: UserRow, principal: Principal) -> User:
        session.add(row)
        await session.flush()
        created = NewEvent("user.created", "user", row.id, row.name, principal.name, data={"role": row.role})
        await self._events.add(session, created)
        user = _user(row)
        after_commit(session, lambda: self._put(user))
        return user

    async def _is_administered(self, *, beside_keys: bool) -> bool:
        async with self._database.read() as session:
            return await _has_admin(session, UserRow) or (
                not beside_keys and await _has_admin(session, KeyRow)
            )

    async def update(
        self,
        user: int | str,
        principal: Principal,
        *,
        role: Role | None = None,
        password: str | None = None,
        disabled: bool | None = None,
        org_id: int | Literal["same"] | None = "same",
    ) -> User:
        """Change a person; every open session of theirs ends. Needs the role admin.

        `org_id` None takes them out of their organisation. Raises LastAdmin, UserNotFound, InvalidField.
        """
        principal.require(Role.ADMIN, "change people")
        password_hash = None if password is None else await self._hash_checked(password)
        changes: Mapping[str, Any] = {
            "role": None if role is None else role.label,
            "password_hash": password_hash,
            "disabled": disabled,
        }
        async with self._database.write() as session:
            row = await _row(session, user, to_change=True)
            if disabled or (role is not None and role < Role.ADMIN):
                await _refuse_last_admin(session, row)
            changed = [name for name, value in changes.items() if value is not None]
            for name in changed:
                setattr(row, name, changes[name])
            if org_id != "same":
                await check_organisation(session, org_id)
                row.org_id = org_id
                changed.append("org_id")
            row.session_epoch += 1
            what = sorted("password" if name == "password_hash" else name for name in changed)
            await self._events.add(
                session,
                NewEvent("user.changed", "user", row.id, row.name, principal.name, data={"fields": what}),
            )
            after = _user(row)
            after_commit(session, lambda: self._put(after))
        return after

    async def delete(self, user: int | str, principal: Principal) -> User:
        """Remove a person; their sessions end at once, their keys stay. Needs the role admin.

        Raises UserNotFound, LastAdmin.
        """
        principal.require(Role.ADMIN, "remove people")
        async with self._database.write() as session:
            row = await _row(session, user, to_change=True)
            await _refuse_last_admin(session, row)
            gone = _user(row)
            await session.execute(update(KeyRow).where(KeyRow.user_id == gone.id).values(user_id=None))
            await session.delete(row)
            await self._events.add(
                session, NewEvent("user.deleted", "user", gone.id, gone.name, principal.name)
            )
            after_commit(session, lambda: self._drop(gone.id))
        return gone

    async def list(
        self,
        *,
        search: str | None = None,
        org_id: int | None = None,
        roles: Collection[Role] | None = None,
        disabled: bool | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[User]:
        """One page of people, of an organisation, with one of these roles, switched off or not.

        Raises InvalidField for an unknown sort.
        """
        check_sort("people", sort, SORTS)
        query = select(UserRow)
        if org_id is not None:
            query = query.where(UserRow.org_id == org_id)
        if roles is not None:
            query = query.where(UserRow.role.in_([role.label for role in roles]))
        if disabled is not None:
            query = query.where(UserRow.disabled.is_(disabled))
        if search:
            query = query.where(UserRow.name.icontains(search, autoescape=True))
        order = order_by(UserRow, sort, descending)
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(_user)

    async def get(self, user: int | str) -> User:
        """The person with this id or name. Raises UserNotFound."""
        async with self._database.read() as session:
            return _user(await _row(session, user))

    async def has_admin(self) -> bool:
        """True when an administrator can sign in."""
        async with self._database.read() as session:
            return await _has_admin(session, UserRow)

    async def verify(self, name: str, password: str) -> User:
        """The person with this name and password.

        Takes the same time whether the name exists or not. Raises WrongPassword.
        """
        async with self._database.read() as session:
            row = await session.scalar(select(UserRow).where(UserRow.name == name))
        if self._decoy is None:
            self._decoy = await self._hash("a password that nobody has")
        matches = await self._matches(row.password_hash if row else self._decoy, password)
        if row is None or row.disabled or not matches:
            raise WrongPassword("name or password is wrong")
        if is_foreign_hash(row.password_hash) or self._hasher.check_needs_rehash(row.password_hash):
            await self._rehash(row.id, password)
        return _user(row)

    def _put(self, user: User) -> None:
        self._changes += 1
        self._by_id[user.id] = user

    def _drop(self, user_id: int) -> None:
        self._changes += 1
        self._by_id.pop(user_id, None)

    async def _hash_checked(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise InvalidField("password", f"a password has from {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        return await self._hash(password)

    async def _hash(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _matches(self, password_hash: str, password: str) -> bool:
        if len(password) > MAX_PASSWORD:
            return False
        if is_foreign_hash(password_hash):
            return await self._foreign.matches(password_hash, password)
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, password_hash, password)
            except (VerificationError, InvalidHashError):
                return False

    async def _rehash(self, user_id: int, password: str) -> None:
        fresh = await self._hash(password)
        async with self._database.write() as session:
            row = await row_to_change(session, UserRow, user_id)
            if row is not None:
                row.password_hash = fresh


async def _refuse_last_admin(session: AsyncSession, row: UserRow) -> None:
    """Raise LastAdmin if this person is the only one left who administers, and there is no such key."""
    if row.role != Role.ADMIN.label or row.disabled:
        return
    if not await _has_admin(session, UserRow, without=row.id) and not await _has_admin(session, KeyRow):
        raise LastAdmin(f"{row.name} is the last administrator", user=row.name)


async def _has_admin(
    session: AsyncSession, table: type[UserRow] | type[KeyRow], *, without: int | None = None
) -> bool:
    """True where a person, or a key, administers and is not switched off."""
    query = select(table.id).where(table.role == Role.ADMIN.label, table.disabled.is_(False))
    if without is not None:
        query = query.where(table.id != without)
    return await session.scalar(query.limit(1)) is not None


async def _row(session: AsyncSession, user: int | str, *, to_change: bool = False) -> UserRow:
    row = await named_row(session, UserRow, user, to_change=to_change)
    if row is None:
        raise UserNotFound(f"there is no person {user!r}", user=user)
    return row


def _user(row: UserRow) -> User:
    return User(
        id=row.id,
        name=row.name,
        role=Role.parse(row.role),
        org_id=row.org_id,
        session_epoch=row.session_epoch,
        disabled=row.disabled,
        created_at=row.created_at,
    )
