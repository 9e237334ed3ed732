"""Organisations, to which people and keys belong."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from ostler.access.organisations import Organisation
from ostler.api.door import needs, router
from ostler.api.native.keys import id_or_name
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Body, Listing, PageOut, page_out
from ostler.core.principals import Role

routes = router("organisations")

OrganisationRef = Annotated[str, Path(max_length=200, description="The organisation's id or name.")]


class OrganisationIn(Body):
    """An organisation's name."""

    name: str


@routes.get("/organisations", response_model=PageOut[Organisation], **needs(Role.ADMIN))
async def list_organisations(rooms: Rooms, who: Who, page: Listing) -> Any:
    """Every organisation. Sort by name, id, created_at."""
    found = await rooms.access.organisations.list(search=page.search, **page.order("name"), **page.part)
    return page_out(found)


@routes.post("/organisations", response_model=Organisation, status_code=201, **needs(Role.ADMIN))
async def create_organisation(rooms: Rooms, who: Who, body: OrganisationIn) -> Any:
    """Add an organisation."""
    return await rooms.access.organisations.create(body.name, who)


@routes.get("/organisations/{organisation}", response_model=Organisation, **needs(Role.ADMIN))
async def show_organisation(rooms: Rooms, who: Who, organisation: OrganisationRef) -> Any:
    """One organisation."""
    return await rooms.access.organisations.get(id_or_name(organisation))


@routes.patch("/organisations/{organisation}", response_model=Organisation, **needs(Role.ADMIN))
async def rename_organisation(
    rooms: Rooms, who: Who, organisation: OrganisationRef, body: OrganisationIn
) -> Any:
    """Give an organisation another name."""
    return await rooms.access.organisations.rename(id_or_name(organisation), body.name, who)


@routes.delete("/organisations/{organisation}", response_model=Organisation, **needs(Role.ADMIN))
async def delete_organisation(rooms: Rooms, who: Who, organisation: OrganisationRef) -> Any:
    """Remove an organisation; its people and keys stay, without one."""
    return await rooms.access.organisations.delete(id_or_name(organisation), who)
