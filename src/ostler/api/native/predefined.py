"""Predefined aliases: short names of models on the hub that can be pulled by that name."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from ostler.api.door import needs, router
from ostler.api.native.jobs import JobOut
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Listing, Out, PageOut, page_out, shape_of
from ostler.core.principals import Role
from ostler.models.predefined import PredefinedAlias

routes = router("predefined")

PredefinedName = Annotated[str, Path(max_length=200)]


@shape_of(PredefinedAlias)
class PredefinedOut(Out):
    """A name, the file that it stands for, and the parameters of the model that is made of it."""


@routes.get("/predefined", response_model=PageOut[PredefinedOut], **needs(Role.USER))
async def list_predefined(rooms: Rooms, who: Who, page: Listing) -> Any:
    """Every predefined alias by name: those that come with Ostler and the operator's own."""
    word = (page.search or "").lower()
    found = [alias for alias in await rooms.predefined.list() if word in alias.name.lower()]
    return page_out(page.cut(found))


@routes.post(
    "/predefined/{alias:path}/pull", response_model=JobOut, status_code=202, **needs(Role.POWER_USER)
)
async def pull_predefined(rooms: Rooms, who: Who, alias: PredefinedName) -> Any:
    """Fetch its file as a job; the model of that name is made when the file is here."""
    return await rooms.predefined_pulls.pull(alias, who)
