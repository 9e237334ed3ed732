"""Container images: which ones the models need, and which of them are on this host."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Who
from ostler.api.shapes import Out, PageOut, one_page
from ostler.core.principals import Role
from ostler.models.images import ImageView, images_needed, look_for

routes = router("system")


class ImageOut(Out):
    """An image that models in containers need."""

    image: str
    engine: str
    is_default: bool = Field(description="Models of this engine that name no image run in it.")
    models: list[str] = Field(description="Models that run in it.")
    is_here: bool
    size_bytes: int | None
    created_at: datetime | None
    tags: list[str]
    trouble: str | None = Field(description="Why it is not known whether it is here.")


@routes.get("/images", response_model=PageOut[ImageOut], **needs(Role.POWER_USER))
async def list_images(rooms: Rooms, who: Who) -> Any:
    """Every image that an engine's default or a model names, and what Docker has of it."""
    needed = images_needed(rooms.models.all(), rooms.engines)
    views = await look_for(needed, rooms.runtimes.get("docker"))
    return one_page([_out(view) for view in views])


def _out(view: ImageView) -> dict[str, Any]:
    needed, local = view.needed, view.local
    return {
        "image": needed.image,
        "engine": needed.engine,
        "is_default": needed.is_default,
        "models": list(needed.models),
        "is_here": local is not None,
        "size_bytes": local.size_bytes if local else None,
        "created_at": local.created_at if local else None,
        "tags": list(local.tags) if local else [],
        "trouble": view.trouble,
    }
