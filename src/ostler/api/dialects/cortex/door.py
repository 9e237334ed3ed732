"""The door of Cortex's routes: as ours, but for browsers that know no CSRF token."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from ostler.api.door import Door


class CortexDoor(Door):
    """A key or a session, as everywhere.

    Cortex's web pages send no CSRF token: a session may change things where the browser says that a
    page of this server or of an allowed origin asks.
    """

    trusts_origin = True


def router(tag: str) -> APIRouter:
    """A router of such doors; `tag` names the noun."""
    return APIRouter(tags=[f"cortex: {tag}"], route_class=CortexDoor)


class CortexBody(BaseModel):
    """A request's body. Its clients send more fields than Cortex knew, which it passed over; so do we."""

    model_config = ConfigDict(extra="ignore", frozen=True)
