"""People who sign in with a name and a password (argon2)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.access.names import check_name
from ostler.access.organisations import check_organisation
from ostler.access.tables import KeyRow, UserRow
from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit, row_to_change
from ostler.core.errors import Conflict, InvalidField, NotFound, Unauthenticated
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import Principal, Role
from ostler.core.queries import check_sort, order_by, page_of

MIN_PASSWORD = 8
MAX_PASSWORD = 1_024
SORTS = ("name", "id", "created_at", "role")
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
        self, name: str, password: str, role: Role, principal: Principal, *, org_id: int | None = None
    ) -> User:
        """Add a person. Needs the role admin. Raises UserNameTaken, InvalidField."""
        principal.require(Role.ADMIN, "add people")
        row = UserRow(
            name=check_name(name, "name"),
            role=role.label,
            org_id=org_id,
            password_hash=await self._hash(password),
            session_epoch=1,
            disabled=False,
            created_at=self._clock.now(),
        )
        try:
            async with self._database.write() as session:
                await check_organisation(session, org_id)
                session.add(row)
                await session.flush()
                await self._events.add(
                    session,
                    NewEvent("user.created", "user", row.id, name, principal.name, data={"role": role.label}),
                )
                user = _user(row)
                after_commit(session, lambda: self._put(user))
        except IntegrityError as error:
            raise UserNameTaken(f"there is already a person named {name!r}", user=name) from error
        return user

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
        password_hash = None if password is None else await self._hash(password)
        changes: Mapping[str, Any] = {
            "role": None if role is None else role.label,
            "password_hash": password_hash,
            "disabled": disabled,
        }
        async with self._database.write() as session:
            row = await session.scalar(select(UserRow).where(_which(user)).with_for_update())
            if row is None:
                raise UserNotFound(f"there is no person {user!r}", user=user)
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
            row = await session.scalar(select(UserRow).where(_which(user)).with_for_update())
            if row is None:
                raise UserNotFound(f"there is no person {user!r}", user=user)
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
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[User]:
        """One page of people. Raises InvalidField for an unknown sort."""
        check_sort("people", sort, SORTS)
        query = select(UserRow)
        if search:
            query = query.where(UserRow.name.icontains(search, autoescape=True))
        order = order_by(UserRow, sort, descending)
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(_user)

    async def get(self, user: int | str) -> User:
        """The person with this id or name. Raises UserNotFound."""
        async with self._database.read() as session:
            row = await session.scalar(select(UserRow).where(_which(user)))
        if row is None:
            raise UserNotFound(f"there is no person {user!r}", user=user)
        return _user(row)

    async def has_admin(self) -> bool:
        """True when an administrator can sign in."""
        async with self._database.read() as session:
            query = select(UserRow.id).where(UserRow.role == Role.ADMIN.label, UserRow.disabled.is_(False))
            return await session.scalar(query.limit(1)) is not None

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
        if self._hasher.check_needs_rehash(row.password_hash):
            await self._rehash(row.id, password)
        return _user(row)

    def _put(self, user: User) -> None:
        self._changes += 1
        self._by_id[user.id] = user

    def _drop(self, user_id: int) -> None:
        self._changes += 1
        self._by_id.pop(user_id, None)

    async def _hash(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise InvalidField("password", f"a password has from {MIN_PASSWORD} to {MAX_PASSWORD} characters")
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _matches(self, password_hash: str, password: str) -> bool:
        if len(password) > MAX_PASSWORD:
            return False
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
    others = select(UserRow.id).where(
        UserRow.role == Role.ADMIN.label, UserRow.disabled.is_(False), UserRow.id != row.id
    )
    keys = select(KeyRow.id).where(KeyRow.role == Role.ADMIN.label, KeyRow.disabled.is_(False))
    for query in (others, keys):
        if await session.scalar(query.limit(1)) is not None:
            return
    raise LastAdmin(f"{row.name} is the last administrator", user=row.name)


def _which(user: int | str) -> Any:
    return UserRow.id == user if isinstance(user, int) else UserRow.name == user


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
