"""Whom a provider's word means here: one person for each issuer and subject."""

from __future__ import annotations

import itertools

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from ostler.access.tables import IdentityRow
from ostler.access.users import User, UserNameTaken, UserNotFound, Users
from ostler.core.database import Database
from ostler.core.principals import SYSTEM, Role

MOST_NAMES = 100


class Identities:
    """Finds and makes the persons whom a provider names.

    A name that somebody has is never taken over: who signs in from elsewhere is another person until an
    administrator says otherwise.
    """

    def __init__(self, database: Database, users: Users) -> None:
        self._database = database
        self._users = users

    async def person(self, issuer: str, subject: str, name: str, role: Role | None, first: Role) -> User:
        """The person, made or brought up to date. `role` None leaves it as it is, `first` where they are new.

        Raises LastAdmin where the last administrator would become less.
        """
        found = await self._find(issuer, subject)
        if found is None:
            return await self._make(issuer, subject, name, first if role is None else role)
        if role is not None and role is not found.role:
            return await self._users.update(found.id, SYSTEM, role=role)
        return found

    async def _find(self, issuer: str, subject: str) -> User | None:
        query = select(IdentityRow.user_id).where(
            IdentityRow.issuer == issuer, IdentityRow.subject == subject
        )
        async with self._database.read() as session:
            user_id = await session.scalar(query)
        try:
            return None if user_id is None else await self._users.get(user_id)
        except UserNotFound:
            return None

    async def _make(self, issuer: str, subject: str, name: str, role: Role) -> User:
        for number in itertools.islice(itertools.count(1), MOST_NAMES):
            try:
                made = await self._users.create_without_password(
                    name if number == 1 else f"{name}-{number}", role, SYSTEM
                )
            except UserNameTaken:
                continue
            try:
                async with self._database.write() as session:
                    session.add(IdentityRow(issuer=issuer, subject=subject, user_id=made.id))
            except IntegrityError:  # a second browser of the same person was quicker
                await self._users.delete(made.id, SYSTEM)
                return await self._find(issuer, subject) or made
            return made
        raise UserNameTaken(f"there are already {MOST_NAMES} people named like {name!r}", user=name)
