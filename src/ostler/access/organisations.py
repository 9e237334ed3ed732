"""Organisations: people and keys belong to them, and what they use is added up by them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from ostler.access.names import check_name
from ostler.access.tables import KeyRow, OrganisationRow, UserRow
from ostler.core.clock import Clock
from ostler.core.database import Database, named_row
from ostler.core.errors import Conflict, InvalidField, NotFound
from ostler.core.events import EventLog, NewEvent
from ostler.core.paging import Page
from ostler.core.principals import Principal, Role
from ostler.core.queries import check_sort, order_by, page_of

SORTS = ("name", "id", "created_at")


class OrganisationNotFound(NotFound):
    """No organisation has this id or name."""

    hint = "See them with: GET /ostler/v1/organisations"


class OrganisationNameTaken(Conflict):
    """Another organisation has this name."""

    hint = "Choose another name."


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation."""

    id: int
    name: str
    created_at: datetime


class Organisations:
    """Every organisation. Changes need the role admin."""

    def __init__(self, database: Database, events: EventLog, clock: Clock) -> None:
        self._database = database
        self._events = events
        self._clock = clock

    async def list(
        self,
        *,
        search: str | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Organisation]:
        """One page of organisations. Raises InvalidField for an unknown sort."""
        check_sort("organisations", sort, SORTS)
        query = select(OrganisationRow)
        if search:
            query = query.where(OrganisationRow.name.icontains(search, autoescape=True))
        order = order_by(OrganisationRow, sort, descending)
        async with self._database.read() as session:
            return (await page_of(session, query, *order, limit=limit, offset=offset)).map(_organisation)

    async def names(self, ids: Collection[int]) -> dict[int, str]:
        """The names of the organisations with these ids."""
        query = select(OrganisationRow).where(OrganisationRow.id.in_(ids))
        async with self._database.read() as session:
            return {row.id: row.name for row in await session.scalars(query)}

    async def get(self, organisation: int | str) -> Organisation:
        """The organisation with this id or name. Raises OrganisationNotFound."""
        async with self._database.read() as session:
            return _organisation(await _row(session, organisation))

    async def create(self, name: str, principal: Principal) -> Organisation:
        """Add one. Raises OrganisationNameTaken, InvalidField."""
        principal.require(Role.ADMIN, "add organisations")
        row = OrganisationRow(name=check_name(name, "name"), created_at=self._clock.now())
        try:
            async with self._database.write() as session:
                session.add(row)
                await session.flush()
                await self._tell(session, "organisation.created", row, principal)
        except IntegrityError as error:
            raise _taken(name) from error
        return _organisation(row)

    async def rename(self, organisation: int | str, name: str, principal: Principal) -> Organisation:
        """Give one another name. Raises OrganisationNotFound, OrganisationNameTaken, InvalidField."""
        principal.require(Role.ADMIN, "rename organisations")
        try:
            async with self._database.write() as session:
                row = await _row(session, organisation, to_change=True)
                row.name = check_name(name, "name")
                await session.flush()
                await self._tell(session, "organisation.renamed", row, principal)
        except IntegrityError as error:
            raise _taken(name) from error
        return _organisation(row)

    async def delete(self, organisation: int | str, principal: Principal) -> Organisation:
        """Remove one; its people and keys stay, without an organisation. Raises OrganisationNotFound."""
        principal.require(Role.ADMIN, "remove organisations")
        async with self._database.write() as session:
            row = await _row(session, organisation, to_change=True)
            gone = _organisation(row)
            for table in (UserRow, KeyRow):
                await session.execute(update(table).where(table.org_id == gone.id).values(org_id=None))
            await session.delete(row)
            await self._tell(session, "organisation.deleted", row, principal)
        return gone

    async def _tell(
        self, session: AsyncSession, kind: str, row: OrganisationRow, principal: Principal
    ) -> None:
        await self._events.add(session, NewEvent(kind, "organisation", row.id, row.name, principal.name))


async def check_organisation(session: AsyncSession, org_id: int | None) -> None:
    """Raise InvalidField unless there is such an organisation (None: none is meant)."""
    if org_id is not None and await session.get(OrganisationRow, org_id) is None:
        raise InvalidField("org_id", f"there is no organisation {org_id}", hint=OrganisationNotFound.hint)


async def organisation_named(session: AsyncSession, name: str, now: datetime) -> int:
    """The id of the organisation with this name, made where there is none. Raises InvalidField."""
    row = await session.scalar(select(OrganisationRow).where(OrganisationRow.name == name))
    if row is None:
        row = OrganisationRow(name=check_name(name, "org_name"), created_at=now)
        session.add(row)
        await session.flush()
    return row.id


async def _row(session: AsyncSession, which: int | str, *, to_change: bool = False) -> OrganisationRow:
    row = await named_row(session, OrganisationRow, which, to_change=to_change)
    if row is None:
        raise OrganisationNotFound(f"there is no organisation {which!r}", organisation=which)
    return row


def _taken(name: str) -> OrganisationNameTaken:
    return OrganisationNameTaken(f"there is already an organisation named {name!r}", organisation=name)


def _organisation(row: OrganisationRow) -> Organisation:
    return Organisation(row.id, row.name, row.created_at)
