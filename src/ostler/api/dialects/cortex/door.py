"""The door of Cortex's routes: as ours, but for browsers that know no CSRF token."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from ostler.access.service import Access
from ostler.api.door import Door
from ostler.core.principals import Principal


class CortexDoor(Door):
    """A key or a session, as everywhere.

    Cortex's web pages send no CSRF token: a session may change things where the browser says that a
    page of this server or of an allowed origin asks.
    """

    def admit(self, request: Request, access: Access) -> Principal:
        """Who asks."""
        peer = request.client.host if request.client else None
        return access.admit(request.scope["headers"], request.method, peer, trust_origin=True)


def router(tag: str) -> APIRouter:
    """A router of such doors; `tag` names the noun."""
    return APIRouter(tags=[f"cortex: {tag}"], route_class=CortexDoor)


class CortexBody(BaseModel):
    """A request's body. Its clients send more fields than Cortex knew, which it passed over; so do we."""

    model_config = ConfigDict(extra="ignore", frozen=True)
